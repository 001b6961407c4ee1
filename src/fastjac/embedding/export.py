"""Writes a network as an object file and a C header, for programs without Python."""

from __future__ import annotations

import re
from pathlib import Path

from fastjac.embedding import object_file
from fastjac.kernels.cache import replace_file
from fastjac.kernels.contexts import Weights
from fastjac.kernels.signatures import MISMATCH, OK

_HEADER = """\
/* The network {name}: {network}.

   {name}.o was compiled by fastjac {version} for {triple}, processor {processor}; link with -lm.

   static {name}_workspace workspace;
   {name}_init(&workspace);
   status = {name}_value_and_jacobian(&workspace, x, y, jac);

   Nothing is allocated and there are no globals that change: one thread uses one workspace at a time. A
   workspace may be anywhere in memory; it must not be moved or copied, but may be initialised again. */

#ifndef FASTJAC_{upper}_H
#define FASTJAC_{upper}_H

#ifdef __cplusplus
extern "C" {{
#endif

enum {{
    {upper}_OK = {ok},
    {upper}_MISMATCH = {mismatch}, /* a null pointer, or arrays that overlap; nothing was written */
    {upper}_UNPREPARED = {unprepared} /* {name}_init was not called for this workspace; nothing was written */
}};

enum {{ {upper}_INPUTS = {inputs}, {upper}_OUTPUTS = {outputs} }};

typedef struct {{
    unsigned char bytes[{workspace}];
}} {name}_workspace;

int {name}_init({name}_workspace *workspace);

/* Reads x[{upper}_INPUTS]; writes the output y[{upper}_OUTPUTS] and its derivatives by the inputs,
   jac[{upper}_OUTPUTS][{upper}_INPUTS] row by row. */
int {name}_value_and_jacobian({name}_workspace *workspace, const {type} *x, {type} *y, {type} *jac);

#ifdef __cplusplus
}}
#endif

#endif
"""


def identifier(text: str) -> str:
    """Return what is most like ``text`` of that with which a C identifier may begin."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"net_{name}"


def export(packed: Weights, folder: str | Path, name: str, network: str, version: str) -> tuple[Path, Path]:
    """Write ``folder/name.h`` and ``folder/name.o``.

    The object file holds the weights and the machine code that the network itself runs, so that the results
    are the same to the last bit. It is for processors that have what numba compiles for: this machine's,
    unless ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` say otherwise.

    Parameters
    ----------
    packed : Packed
        The network's weights.
    folder : path
        Made if it is not there.
    name : str
        All names in the header begin with it.
    network, version : str
        The network and the version of fastjac, as a comment in the header tells them.

    Returns
    -------
    header, code : Path

    Raises
    ------
    ValueError
        If no C identifier begins with ``name``.
    OSError
        If a file cannot be written.
    """
    if name != identifier(name):
        raise ValueError(f"name is {name!r}, with which no C identifier begins")
    compiled = object_file.compile_object(packed, name)
    n_inputs, n_outputs = packed.plan.sizes[0], packed.plan.sizes[-1]
    text = _HEADER.format(
        name=name,
        upper=name.upper(),
        network=network.replace("*/", "* /"),
        version=version,
        triple=compiled.triple,
        processor=compiled.processor,
        ok=OK,
        mismatch=MISMATCH,
        unprepared=object_file.UNPREPARED,
        inputs=n_inputs,
        outputs=n_outputs,
        workspace=compiled.workspace,
        type={"float32": "float", "float64": "double"}[packed.dtype.name],
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, code = folder / f"{name}.h", folder / f"{name}.o"
    replace_file(header, text.encode())
    replace_file(code, compiled.code)
    return header, code
