"""FastAPI as tutorials write it, a coroutine: ``python fastapi_async.py MODEL PORT``."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from graph import open_graph
from pydantic import BaseModel


class Rows(BaseModel):
    """What is asked."""

    rows: list[list[float]]


class Answer(BaseModel):
    """What is answered."""

    label: list[int]
    probabilities: list[list[float]]


app = FastAPI()
session = open_graph(sys.argv[1])


@app.post("/predict")
async def predict(asked: Rows) -> Answer:
    """Scores in the event loop."""
    label, probabilities = session.run(None, {"input": np.array(asked.rows, dtype=np.float32)})
    return Answer(label=label.tolist(), probabilities=probabilities.tolist())


uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
