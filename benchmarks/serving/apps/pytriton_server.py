"""PyTriton as its guide writes it, with its dynamic batcher: ``python pytriton_server.py MODEL PORT``."""

import os
import sys
import sysconfig

import numpy as np
from graph import open_graph
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

session = open_graph(sys.argv[1])


@batch
def score(**inputs: np.ndarray) -> list[np.ndarray]:
    """Returns label, (rows, 1), and probabilities, (rows, 2)."""
    label, probabilities = session.run(None, {"input": inputs["input"]})
    return [label[:, None], probabilities]


if __name__ == "__main__":
    # Triton's Python is the libpython that is found first; it has to be the one of this environment.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    config = TritonConfig(http_address="127.0.0.1", http_port=int(sys.argv[2]), allow_grpc=False, allow_metrics=False)
    with Triton(config=config, workspace="workspace") as triton:
        triton.bind(
            model_name="bench",
            infer_func=score,
            inputs=[Tensor(name="input", dtype=np.float32, shape=(30,))],
            outputs=[
                Tensor(name="label", dtype=np.int64, shape=(1,)),
                Tensor(name="probabilities", dtype=np.float32, shape=(2,)),
            ],
            config=ModelConfig(max_batch_size=1024),
            strict=False,
        )
        triton.serve()
