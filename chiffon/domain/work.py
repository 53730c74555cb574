"""`@work`: a plain function becomes a work type, its type hints the schema of its parameters."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from chiffon.domain.context import WorkContext
from chiffon.domain.errors import ChiffonError, InvalidParameters, Problem, UnknownWorkType
from chiffon.domain.retry import RetryPolicy
from chiffon.domain.unordered import has_sets, ordered
from chiffon.domain.values import pointer_to

P = ParamSpec("P")
R = TypeVar("R")
DEFAULT_QUEUE = "work_queue"
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,199}")
_FAMILY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class WorkTypeError(ChiffonError):
    """A function cannot be made a work type as it is declared."""


@dataclass(frozen=True)
class WorkType:
    """A kind of work: a name, a function, and how it is run. ``timeout`` is seconds; None is the default limit."""

    name: str
    function: Callable[..., Any]
    description: str
    model: type[BaseModel] = field(repr=False)
    context_parameter: str | None = None
    timeout: float | None = None
    retries: int = 0
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    queue: str = DEFAULT_QUEUE
    dead_letter: bool = True
    retry_timeouts: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the parameters."""
        return self.model.model_json_schema(by_alias=True)

    @cached_property
    def _has_sets(self) -> bool:
        return has_sets(self.model)

    def bind(self, arguments: list[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Positional ``arguments`` (as Celery's clients and chains send them) joined to the named ``parameters``."""
        names = [alias for f in self.model.model_fields.values() if (alias := f.alias)]
        if len(arguments) > len(names):
            raise InvalidParameters(
                f"{self.name} takes {len(names)} parameters, not {len(arguments)} positional ones",
                (Problem("/parameters", f"{len(arguments)} positional, at most {len(names)}"),),
            )
        bound = dict(zip(names, arguments, strict=False))
        if twice := sorted(bound.keys() & parameters.keys()):
            raise InvalidParameters(
                f"{self.name} got {twice[0]!r} twice",
                (Problem(pointer_to(("parameters", twice[0])), "given twice"),),
            )
        return bound | dict(parameters)

    def validate(self, parameters: Mapping[str, Any]) -> BaseModel:
        """The parameters as their model. JSON's types are taken strictly. Raises InvalidParameters."""
        try:
            return self.model.model_validate_json(json.dumps(parameters), strict=True)
        except ValidationError as found:
            raise self._unfit(found) from None

    def canonical(self, parameters: Mapping[str, Any]) -> Any:
        """The validated parameters as JSON values, defaults filled in: what two equal dispatches share."""
        valid = self.validate(parameters)
        dumped = valid.model_dump(mode="json", by_alias=True)
        return ordered(valid, dumped) if self._has_sets else dumped

    def call(self, parameters: Mapping[str, Any], context: WorkContext) -> Any:
        """Run the function. Raises InvalidParameters, and whatever the work raises."""
        model = self.validate(parameters)
        values = {f.alias or name: getattr(model, name) for name, f in type(model).model_fields.items()}
        values.update(model.model_extra or {})
        if self.context_parameter:
            values[self.context_parameter] = context
        return self.function(**values)

    def _unfit(self, found: ValidationError) -> InvalidParameters:
        problems = tuple(
            Problem(pointer_to(("parameters", *error["loc"])), error["msg"])
            for error in found.errors(include_url=False)
        )
        told = "; ".join(f"{p.pointer}: {p.detail}" for p in problems)
        return InvalidParameters(f"the parameters do not fit {self.name}: {told}", problems)


class WorkTypes:
    """The work types that this process knows, by name."""

    def __init__(self) -> None:
        self._types: dict[str, WorkType] = {}

    def add(self, work_type: WorkType) -> None:
        """Register. A second function under the same name is an error; the same one again is not."""
        known = self._types.get(work_type.name)
        if known is not None and _origin(known.function) != _origin(work_type.function):
            raise WorkTypeError(
                f"two functions are called {work_type.name!r}: "
                f"{_origin(known.function)} and {_origin(work_type.function)}"
            )
        self._types[work_type.name] = work_type

    def get(self, name: str) -> WorkType:
        """The work type called ``name``. Raises UnknownWorkType with the nearest known names."""
        try:
            return self._types[name]
        except KeyError:
            raise UnknownWorkType(name, tuple(difflib.get_close_matches(name, self._types, n=3))) from None

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[WorkType]:
        return iter(sorted(self._types.values(), key=lambda w: w.name))

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that some work type asks for, `work_queue` first."""
        return (DEFAULT_QUEUE, *sorted({w.queue for w in self} - {DEFAULT_QUEUE}))


registry = WorkTypes()
"""Where `@work` registers."""


# Over 40 lines: half of it is the signature that users see, and what each argument means.
def work(
    name: str,
    *,
    timeout: float | None = None,
    retries: int = 0,
    backoff: RetryPolicy | None = None,
    queue: str | None = None,
    dead_letter: bool = True,
    retry_timeouts: bool = False,
    into: WorkTypes = registry,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a work type.

    Args:
        name: what `POST /dispatch` calls it, such as ``text.count``.
        timeout: seconds, > 0, after which a run is stopped; None is ``CHIFFON_DEFAULT_TIMEOUT``.
        retries: how many times a failed run is repeated; 0, since work that is not known to be repeatable must not be.
        backoff: how long to wait before each.
        queue: a family; its messages go to ``work_queue.<family>``.
        dead_letter: False keeps the message of a failed task out of ``dlx_queue``.
        retry_timeouts: whether a run that was stopped by its time limit counts as one that may be repeated.
        into: the registry; tests have their own.

    Raises:
        WorkTypeError: when the declaration cannot work.
    """
    _check_declaration(name, timeout, retries, queue)

    def register(function: Callable[P, R]) -> Callable[P, R]:
        model, context_parameter = _model_of(name, function)
        into.add(
            WorkType(
                name=name,
                function=function,
                description=inspect.getdoc(function) or "",
                model=model,
                context_parameter=context_parameter,
                timeout=timeout,
                retries=retries,
                policy=backoff or RetryPolicy(),
                queue=f"{DEFAULT_QUEUE}.{queue}" if queue else DEFAULT_QUEUE,
                dead_letter=dead_letter,
                retry_timeouts=retry_timeouts,
            )
        )
        return function

    return register


def is_queue(name: str) -> bool:
    """Whether work may lie there: ``work_queue``, or one of a family."""
    first, _, family = name.partition(".")
    return first == DEFAULT_QUEUE and (name == DEFAULT_QUEUE or _FAMILY.fullmatch(family) is not None)


def _check_declaration(name: str, timeout: float | None, retries: int, queue: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise WorkTypeError(f"{name!r} is no name for a work type: letters, digits, '_', '.' and '-', a letter first")
    if queue is not None and not _FAMILY.fullmatch(queue):
        raise WorkTypeError(f"{queue!r} is no name for a queue: small letters, digits, '_', '.' and '-'")
    if timeout is not None and not timeout > 0:
        raise WorkTypeError(f"{name}: timeout must be more than 0 seconds, not {timeout}")
    if retries < 0:
        raise WorkTypeError(f"{name}: retries must not be negative")


def _model_of(name: str, function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    """The pydantic model of a function's parameters, and the name of the one that takes the context."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise WorkTypeError(f"{name}: a type hint cannot be resolved: {error}") from error
    fields: dict[str, Any] = {}
    context_parameter = None
    rest: Any = None
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        hint = hints.get(parameter.name, Any)
        if hint is WorkContext or WorkContext in typing.get_args(hint):
            if context_parameter is not None:
                raise WorkTypeError(f"{name}: one parameter takes the WorkContext, not two")
            context_parameter = parameter.name
        elif parameter.kind is parameter.VAR_KEYWORD:
            rest = hint
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise WorkTypeError(f"{name}: parameters are given by name, so {parameter} cannot be filled")
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            # The field has a name of its own, for a parameter may be called as an attribute of the model is.
            fields[f"p{index}"] = (hint, Field(default, alias=parameter.name))
    try:
        return create_model(name, __base__=_base_of(name, rest), **fields), context_parameter
    except PydanticSchemaGenerationError as error:
        raise WorkTypeError(f"{name}: JSON cannot fill a parameter: {error.message}") from error


def _base_of(name: str, rest: Any) -> type[BaseModel]:
    """How strict a model is. ``rest``: the type of parameters that nobody declared; None where there may be none."""
    extra: typing.Literal["allow", "forbid"] = "forbid" if rest is None else "allow"
    config = ConfigDict(extra=extra, arbitrary_types_allowed=False, allow_inf_nan=False, title=name)
    typed = {} if rest is None else {"__pydantic_extra__": dict[str, rest]}
    base: type[BaseModel] = type(name, (BaseModel,), {"model_config": config, "__annotations__": typed})
    return base


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
