"""Writes a network as an object file and a C header, for programs without Python."""

from __future__ import annotations

import re
from pathlib import Path

import fastjac
from fastjac.embedding import object_file
from fastjac.kernels import routines
from fastjac.network import Network

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


def export(net: Network, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write ``folder/name.h`` and ``folder/name.o``.

    The object file holds the weights and the machine code that ``net`` itself runs, so that the results
    are the same to the last bit. It is for processors that have what numba compiles for: this machine's,
    unless ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` say otherwise.

    Parameters
    ----------
    net : Network
    folder : path
        Made if it is not there.
    name : str
        All names in the header begin with it.

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
    compiled = object_file.compile_object(net._packed, name)
    text = _HEADER.format(
        name=name,
        upper=name.upper(),
        network=str(net).replace("*/", "* /"),
        version=fastjac.__version__,
        triple=compiled.triple,
        processor=compiled.processor,
        ok=routines.OK,
        mismatch=routines.MISMATCH,
        unprepared=object_file.UNPREPARED,
        inputs=net.n_inputs,
        outputs=net.n_outputs,
        workspace=compiled.workspace,
        type={"float32": "float", "float64": "double"}[net.dtype.name],
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, code = folder / f"{name}.h", folder / f"{name}.o"
    header.write_text(text, encoding="utf-8")
    code.write_bytes(compiled.code)
    return header, code
