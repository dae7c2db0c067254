"""The live page: what the station sees and decides, in a browser.

A child process (`server_main`) serves it. The agent starts it, and starts it again if it fails (`page_feed`,
`child_handle`); it may hang, die or be attacked without any effect on the inspection. The loop only leaves the text of
each result and a reference to the newest frame. A thread sends these on, and copies a frame when the child asks for
one: at most ten times a second, and only while a browser watches.

Only the child imports the packages of the extra ``web``.
"""
