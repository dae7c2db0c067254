"""A station learns on from the parts that come by: on command, beside the inspection, proved before it judges.

The loop hands over network inputs (`tap`); a process of its own keeps them, learns, and proves what it has learnt
(`process`, `pupil`); a thread of the agent leads through the phases (`course`), and commands begin and end it (`desk`).
"""
