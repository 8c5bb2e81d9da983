"""Build the native libraries: everything is said in CMakeLists.txt, this file only calls it.

Environment: PYMLP_DEBUG=1 builds without optimisation. PYMLP_CUDA=ON or OFF says whether to compile
the CUDA kernels; otherwise they are where nvcc and a GPU are found. PYMLP_CUDA_ARCHITECTURES says
for which devices, as `80;90` for sm_80 and sm_90.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def program(name: str) -> str:
    """Path of a build tool: the one from PyPI next to this interpreter, else the one on PATH."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return name
    candidates = [
        Path(spec.origin).parent / "data" / "bin" / name,
        Path(sys.executable).parent / name,
    ]
    return next((str(path) for path in candidates if path.exists()), name)


def torch_directory() -> Path:
    """Where torch is installed, found without importing it; scripts/build_backend.py asked for it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


class CleanBuild(build_py):
    """Start from nothing: a wheel takes whatever lies in the build directory, old modules too."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configure, build and install CMakeLists.txt into the package directory."""

    cmake_directory = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        build = self.cmake_directory
        debug = os.environ.get("PYMLP_DEBUG", "0") == "1"
        cmake = program("cmake")
        # Every option is passed every time: the build directory outlives the environments that
        # pip makes for isolated builds, so no cached path may be trusted.
        options = {
            "CMAKE_BUILD_TYPE": "Debug" if debug else "Release",
            "CMAKE_MAKE_PROGRAM": program("ninja"),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "PYMLP_TORCH": str(torch_directory()),
            "PYMLP_CUDA": os.environ.get("PYMLP_CUDA") or "AUTO",
            "PYMLP_CUDA_ARCHITECTURES": os.environ.get("PYMLP_CUDA_ARCHITECTURES") or "80;90",
        }
        defines = [f"-D{key}={value}" for key, value in options.items()]
        subprocess.run([cmake, "-S", ROOT, "-B", build, "-G", "Ninja", *defines], check=True)
        subprocess.run([cmake, "--build", build], check=True)
        self.install(Path(self.build_lib).resolve() / "pymlp")

    def copy_extensions_to_source(self) -> None:
        """Editable installs run the package from the source tree: its libraries go there too."""
        self.install(ROOT / "pymlp")

    def install(self, package: Path) -> None:
        subprocess.run(
            [program("cmake"), "--install", self.cmake_directory, "--prefix", package], check=True
        )


setup(
    ext_modules=[Extension("pymlp._engine", sources=[])],
    cmdclass={"build_py": CleanBuild, "build_ext": CMakeBuild},
)
