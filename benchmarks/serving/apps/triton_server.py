"""The Triton server of ``nvidia-pytriton``, Python backend: ``python triton_server.py MODEL PORT single|batching``.

It lays out backend and model in the present folder, where ``tritonserver`` looks for them.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

CONFIG = """
name: "bench"
backend: "python"
max_batch_size: 1024
input {{ name: "input" data_type: TYPE_FP32 dims: [ 30 ] }}
output {{ name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape {{ shape: [ ] }} }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
parameters {{ key: "graph" value {{ string_value: "{graph}" }} }}
{batching}
"""


def main() -> None:
    """Becomes the server."""
    graph, port, mode = sys.argv[1:]
    site = Path(sysconfig.get_paths()["purelib"])
    server, libraries = site / "pytriton" / "tritonserver", site / "nvidia_pytriton.libs"
    backend, model = Path("backends/python").resolve(), Path("models/bench").resolve()
    shutil.copytree(server / "backends" / "python", backend)
    stub = server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(stub / "triton_python_backend_stub", backend)
    (model / "1").mkdir(parents=True)
    here = Path(__file__).parent
    shutil.copy(here / "triton_model.py", model / "1" / "model.py")
    shutil.copy(here / "graph.py", model / "1")
    batching = "dynamic_batching { }" if mode == "batching" else ""
    (model / "config.pbtxt").write_text(CONFIG.format(graph=graph, batching=batching))
    # Its Python ignores PYTHONPATH. It is the libpython that is found first, in the environment of PATH's python3.
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([sysconfig.get_config_var("LIBDIR"), str(libraries)])
    command = [str(server / "bin" / "tritonserver"), "--model-repository", str(model.parent)]
    command += ["--backend-directory", str(backend.parent), "--http-address", "127.0.0.1", "--http-port", port]
    command += ["--allow-grpc", "false", "--allow-metrics", "false", "--log-info", "false", "--log-warning", "false"]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
