"""`guthi tenants`: societies on this deployment. Needs the owner's database URL, as no key exists yet."""

import asyncio
from typing import Annotated

import typer

from cli.database import owner_connection
from cli.output import print_json
from domain.tenants import create_tenant

app = typer.Typer(help="Societies on this deployment.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `create` a sub-command while it is the only one."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The society's name.")],
    prefix: Annotated[str, typer.Option(help="First part of its member numbers: 2 to 5 capital letters.")],
) -> None:
    """Make a society and its first admin; prints the key, which is kept nowhere and not shown again."""
    tenant_id, api_key = asyncio.run(_create(name, prefix))
    print_json({"tenantId": tenant_id, "apiKey": api_key})


async def _create(name: str, prefix: str) -> tuple[str, str]:
    async with owner_connection() as connection:
        tenant = await create_tenant(connection, name, prefix)
        return str(tenant.tenant_id), tenant.api_key
