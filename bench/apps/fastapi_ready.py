"""FastAPI with SQLAlchemy's asyncio that says whether its database answers: what is compared with a start of ours."""

import os

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

app = FastAPI()
sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(create_async_engine(os.environ["DATABASE_URL"]))


@app.get("/readyz")
async def ready() -> dict[str, str]:
    async with sessions() as session:
        (await session.execute(text("SELECT 1"))).one()
    return {"status": "ok"}
