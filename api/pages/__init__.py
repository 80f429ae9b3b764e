"""The operators' pages: HTML over the API, for people who are signed in. No page reads the database past it.

client.py    the API's own routes, called inside of this process as the session's user
visit.py     what every page is given: who is here, the API as theirs, the form's token, the language
render.py    templates, numbers and times in the reader's language
faults.py    problems as pages: what happened, what is safe, what to do next
headers.py   what every page's answer says to the browser
"""

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from api.pages import cycles, faults, home, jobs, maintenance, sign_in, start, users, workers
from api.pages.render import Renderer

ROUTERS = [module.router for module in (home, sign_in, start, cycles, jobs, maintenance, workers, users)]


def install_pages(app: FastAPI) -> None:
    """After the API's own routes and problem handlers, which the pages build on."""
    app.state.renderer = Renderer()
    for router in ROUTERS:
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    faults.install(app)
