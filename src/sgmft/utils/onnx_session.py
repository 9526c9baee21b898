"""ONNX files: written node by node, without torch; kept in the user's cache; open for running."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgmft.errors import SgmftError, raising
from sgmft.utils.checksums import file_digest
from sgmft.utils.files import open_cached, write_whole

Array = NDArray[Any]
Write = Callable[[Path], None]  # a graph, as that file
OPSET, IR_VERSION = 20, 10  # ONNX Runtime 1.20 reads both
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators


class Session:
    """A graph in ONNX Runtime, which chooses the number of threads where it is 0."""

    def __init__(self, path: Path, threads: int = 0, on_gpu: bool = False) -> None:
        import onnxruntime  # takes a moment: only where something is to be run

        if not path.is_file():
            raise SgmftError(f"{path} is missing: export the model again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait for the next layer sleep: spinning, they keep others from their cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"]
        # The runtime raises many kinds of its own.
        with raising(f"{path} is damaged: export the model again.", Exception):
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers)
        self.inputs: list[str] = [given.name for given in self._session.get_inputs()]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """Compute the outputs of those names; inputs that the graph does not read are left out."""
        known = {name: inputs[name] for name in self.inputs}
        return [np.asarray(x) for x in self._session.run(list(outputs), known)]


def open_graph(name: str, write: Write, threads: int, on_gpu: bool = False) -> Session:
    """Open the graph of that name in the user's cache, or else let `write` make it there."""

    def write_checked(path: Path) -> None:
        write(path)
        write_whole(path.with_suffix(".sha256"), file_digest(path).encode())

    def open_checked(path: Path) -> Session:
        if path.with_suffix(".sha256").read_text("ascii") != file_digest(path):
            raise ValueError(path)
        return Session(path, threads, on_gpu)

    session: Session = open_cached(f"graphs/{name}.onnx", write_checked, open_checked)
    return session


class Graph:
    """An ONNX graph that grows node by node; every node has one output."""

    def __init__(self) -> None:
        import onnx  # takes half a second: a graph is mostly there

        self._onnx = onnx
        self.nodes, self.weights = list[Any](), list[Any]()

    def weight(self, name: str, values: ArrayLike) -> str:
        """Add a constant; return its name."""
        self.weights.append(self._onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output, which is its own."""
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def write(self, path: Path, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Write the graph; `inputs` are types and shapes by name, `outputs` shapes, of float32."""
        helper, TensorProto = self._onnx.helper, self._onnx.TensorProto
        describe = helper.make_tensor_value_info
        given = [describe(name, getattr(TensorProto, x), y) for name, (x, y) in inputs.items()]
        found = [describe(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        whole = helper.make_graph(self.nodes, path.stem, given, found, self.weights)
        written = {"ir_version": IR_VERSION, "producer_name": "sgmft"}
        domains = sorted({node.domain for node in self.nodes})
        opsets = [helper.make_opsetid(x, 1 if x == CONTRIB else OPSET) for x in domains]
        model = helper.make_model(whole, opset_imports=opsets, **written)
        write_whole(path, model.SerializeToString(deterministic=True))
