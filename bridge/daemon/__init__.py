"""The bridge as a service: HTTP over the same functions that the command line calls.

app.py        the routes, and what stands before them
endpoint.py   one operation: key, limits, body ─▶ handler ─▶ answer, a measure and a line in the log
messages.py   what is asked and answered, as records; openapi.py describes them
service.py    engine, models and rewriters, shared by all requests
batching.py   texts of many requests ─▶ one batch of an encoder
jobs.py       what takes longer than a request; kept in SQLite, gone on with after a crash
keys.py       who may do what
"""
