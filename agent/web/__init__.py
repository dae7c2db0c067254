"""The live page: what the station sees and decides, in a browser.

It is served by a process of its own (`child`), which the agent starts, listens to and starts again (`page`,
`process`); it may hang, die or be attacked without the inspection noticing. The loop only leaves behind what it has
anyway: the text of each result, and a reference to the newest frame. A thread hands these on, and copies a frame when
the page's process asks for one, which it does while somebody watches, ten times a second at most.

Nothing here that the agent imports needs the packages of the extra ``web``; those are imported by the child.
"""
