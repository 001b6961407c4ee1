"""Has numba optimise and emit a routine once, with the functions that it calls, instead of each of these too.

numba compiles every function to machine code as soon as it is called, with all that it calls inside. A
function made with `inner` here is kept as LLVM's instructions, in a module of its own; one made with
`outermost` takes in each of those modules once. Of numba's passes, both get those that kernels need.

What numba calls its code libraries is no public interface of it: with a version that is not known here,
functions are compiled as numba does, with the same results.
"""

# numba is not typed.
# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, has-type"

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import config, types
from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import require_global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.typing import Context

KNOWN = ("0.68.",)  # versions of numba, by how they begin
# The kernels have no closures, no generators, no branches for a type alone, and nothing to rewrite.
PASSES = {
    *("TranslateByteCode", "FixupArgs", "IRProcessing", "ReconstructSSA"),
    *("NopythonTypeInference", "PreLowerStripPhis"),
    *("AnnotateTypes", "NativeLowering", "NoPythonBackend"),
}


class _Library(JITCodeLibrary):
    """The code of one function, and the libraries of those that it calls."""

    def add_llvm_module(self, module: Any) -> None:
        """Add instructions as they are: all is optimised once, where it ends up."""
        self._final_module.link_in(module)

    def add_linking_library(self, library: Any) -> None:
        """Remember the library of a function that is called, whose code is needed at the end only."""
        self._linking_libraries.append(library)

    def _link(self, module: Any) -> None:
        """Link the code of all functions that are called to this one's module, each once."""
        runtime = rtsys.library
        for library in _called(self):
            if library is not runtime:
                self._reload_init.update(library._reload_init)
                # A library that is finalised contains the others.
                ready = library._finalized and not isinstance(library, _Inner)
                part = library._get_module_for_linking() if ready else library._final_module
                module.link_in(part, preserve=True)
        if any(f.is_declaration and f.name.startswith("NRT_") for f in module.functions):
            module.link_in(runtime._get_module_for_linking(), preserve=True)


def _called(library: Any) -> Iterator[Any]:
    """Yield the libraries of all functions that are called below one, after one that calls them."""
    found = {id(library)}
    queue = list(library._linking_libraries)
    while queue:
        following = queue.pop()
        if id(following) not in found:
            found.add(id(following))
            yield following
            if isinstance(following, _Inner) or not following._finalized:
                queue.extend(following._linking_libraries)


class _Inner(_Library):
    """The code of a function that is called by others only."""

    @property
    def codegen(self) -> Any:
        """What numba gives the function's environment to, which nothing refers to."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing."""

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: there is no machine code."""
        return 0

    def finalize(self) -> None:
        """Do no more, until an ordinary function that calls this one is compiled."""
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            module = self._final_module.clone()
            self._link(module)
            for function in module.functions:
                if not function.is_declaration and function.linkage == binding.Linkage.external:
                    function.linkage = "linkonce_odr"
            self._shared_module = module
        return self._shared_module


class _Outermost(_Library):
    """The code of a function with that of all that it calls."""

    def finalize(self) -> None:
        """Link, optimise and emit all."""
        require_global_compiler_lock()
        self._raise_if_finalized()
        module = self._final_module
        own = {value.name for value in _defined(module) if value.linkage != binding.Linkage.linkonce_odr}
        self._link(module)
        # Then LLVM drops, clones and inlines them as it sees fit.
        for value in _defined(module):
            if value.name not in own:
                value.linkage = "internal"
        # numba's passes before these, which bring reference counts together, keep the activations scalar.
        options = binding.create_pipeline_tuning_options(speed_level=config.OPT)
        options.loop_vectorization = bool(config.LOOP_VECTORIZE)
        options.loop_unrolling = False  # Tiles have as many sums under way as they need.
        builder = binding.create_pass_builder(self._codegen._tm, options)
        builder.getModulePassManager().run(module, builder)
        module.verify()
        self._finalize_final_module()

    def _get_module_for_linking(self) -> Any:
        return binding.parse_assembly("")  # The machine code is there, for whoever calls it.


def _defined(module: Any) -> Iterator[Any]:
    for values in (module.functions, module.global_variables):
        for value in values:
            if not value.is_declaration and value.linkage != binding.Linkage.private:
                yield value


class _Typing(Context):
    """numba's typing context, which remembers what functions of numbers return.

    For each sum of two integers numba would look again through its rules for operands of all kinds.
    """

    def __init__(self, given: Context) -> None:
        self.__dict__ = given.__dict__
        self._known: dict[Any, Any] = {}

    def resolve_function_type(self, function: Any, args: Any, kws: Any) -> Any:
        """Return the signature of a function for arguments of these types."""
        of_numbers = isinstance(function, types.Function) and all(isinstance(a, types.Number) for a in args)
        if kws or not of_numbers:
            return super().resolve_function_type(function, args, kws)
        key = function, args
        if key not in self._known:
            self._known[key] = super().resolve_function_type(function, args, kws)
        return self._known[key]


_typing = functools.cache(_Typing)


class _Compiler(Compiler):
    """numba's compiler, with fewer passes and another library for the code."""

    library_class: type[CPUCodeLibrary]

    def define_pipelines(self) -> list[Any]:
        """Return those of numba's passes that the kernels need."""
        (manager,) = super().define_pipelines()
        manager.passes = [(each, what) for each, what in manager.passes if each.__name__ in PASSES]
        manager.finalize()
        return [manager]

    def compile_extra(self, function: Any) -> Any:
        """Compile a function."""
        library = self.library_class(self.state.targetctx.codegen(), function.__qualname__)
        library.enable_object_caching()
        self.state.library = library
        self.state.typingctx = _typing(self.state.typingctx)
        return super().compile_extra(function)


class _InnerCompiler(_Compiler):
    library_class = _Inner


class _OutermostCompiler(_Compiler):
    library_class = _Outermost


_outlined: dict[str, _Inner] = {}


def call_outlined(
    context: Any,
    builder: ir.IRBuilder,
    name: str,
    kind: ir.FunctionType,
    emit: Callable[[ir.IRBuilder], None],
    arguments: Sequence[ir.Value],
) -> ir.Value:
    """Emit a call of a function of that name, whose body ``emit`` emits where none has one yet.

    Code as large as a tile's would otherwise be optimised and emitted for every place that it is used in.
    """
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, kind, name)
        if not links_once:
            function.linkage = "linkonce_odr"
            _define(function, emit)
    if links_once:
        if name not in _outlined:
            library = _Inner(context.codegen(), name)
            module = library.create_ir_module(name)
            _define(ir.Function(module, kind, name), emit)
            library.add_ir_module(module)
            _outlined[name] = library
        context.active_code_library.add_linking_library(_outlined[name])
    return builder.call(function, arguments)


def _define(function: ir.Function, emit: Callable[[ir.IRBuilder], None]) -> None:
    function.attributes.add("noinline")
    function.attributes.add("noduplicate")  # nor a second one for a constant argument
    emit(ir.IRBuilder(function.append_basic_block()))


links_once = numba.__version__.startswith(KNOWN)
# Options of `numba.njit` for functions that compiled code calls, and for those called from outside. In inner
# ones there is nothing to rewrite for numba, and no array of their own whose references it would count.
INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "no_rewrites": True}
OUTERMOST: dict[str, Any] = {"no_cfunc_wrapper": True}
if links_once:
    INNER |= {"pipeline_class": _InnerCompiler, "_nrt": False}
    OUTERMOST["pipeline_class"] = _OutermostCompiler
