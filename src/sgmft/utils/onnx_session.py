"""An ONNX file that is open for running."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmft.errors import SgmftError

Array = NDArray[Any]


class Session:
    """A graph in ONNX Runtime, which chooses the number of threads where it is 0."""

    def __init__(self, path: Path, threads: int = 0, on_gpu: bool = False) -> None:
        import onnxruntime  # takes a moment: only where something is to be run

        if not path.is_file():
            raise SgmftError(f"{path} is missing: export the model again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait for the next layer sleep: spinning, they keep other programs, and this
        # one's own decoding of images, from the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            providers = ["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"]
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers)
        except Exception as error:  # the runtime raises many kinds of its own
            raise SgmftError(f"{path} is damaged: export the model again.") from error
        self.inputs: list[str] = [given.name for given in self._session.get_inputs()]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """Compute the outputs of those names; inputs that the graph does not read are left out."""
        known = {name: inputs[name] for name in self.inputs}
        return [np.asarray(x) for x in self._session.run(list(outputs), known)]
