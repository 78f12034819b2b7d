"""MLflow's ONNX flavour, one worker: ``python mlflow_server.py MODEL PORT``, which becomes ``mlflow models serve``."""

import os
import sys

import mlflow.onnx
import onnx

THREADS = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}

mlflow.onnx.save_model(
    onnx.load(sys.argv[1]),
    "saved",
    onnx_session_options=THREADS,
    pip_requirements=["mlflow"],
    save_as_external_data=False,
)
command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "saved", "--env-manager", "local"]
os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", sys.argv[2], "--workers", "1"])
