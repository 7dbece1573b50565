"""The methods by name: what each makes, what it needs and which options it has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.documents import Operation
from steering.errors import FitError, InvalidFieldError, SteeringError, short_repr
from steering.sites import Site

from .activations import SampleCounts
from .fitted import combine_layers
from .fitters.angular_plane import fit_angular_plane
from .fitters.gaussian_transport import fit_gaussian_transport
from .fitters.iti_heads import check_held_out, check_top_k, fit_iti_heads
from .fitters.leace import fit_leace
from .fitters.linear_act import fit_linear_act
from .fitters.means import fit_mean_centring, fit_mean_difference
from .fitters.null_space import fit_null_space
from .fitters.pca import check_rank, fit_pair_pca, fit_pca
from .fitters.probe import fit_probe
from .options import MethodOptions, options_of


@dataclass(frozen=True)
class Method:
    """A way to make a direction from two sets of activations.

    Attributes:
        name: In requests and in provenance.
        fitter: The function.
        kind: Kind of the direction it makes.
        operation: Operation its direction is meant for; None for one that is read, not applied.
        min_samples: Fewest samples of each set it is offered for; the fitter itself takes fewer.
        is_paired: Whether row i of one set belongs to row i of the other.
        spans_layers: Whether it looks at all layers together; otherwise it fits each on its own.
        is_sequential: Whether a later layer should be fitted with the earlier ones active.
        min_layers: Fewest layers it takes.
        only_site: The one site it is for; None for any.
        supports: Raises where so many samples do not support options; None where all do.
    """

    name: str
    fitter: Callable[..., Direction]
    kind: DirectionKind
    operation: Operation | None
    min_samples: int
    is_paired: bool = False
    spans_layers: bool = False
    is_sequential: bool = False
    min_layers: int = 1
    only_site: Site | None = None
    supports: Callable[[Mapping[str, Any], SampleCounts], None] | None = None

    @cached_property
    def summary(self) -> str:
        """What the method makes, in one line."""
        return inspect.getdoc(self.fitter).split("\n")[0]  # type: ignore[union-attr]

    @cached_property
    def options(self) -> type[MethodOptions]:
        """The model of the method's options."""
        return options_of(self.fitter, f"method {self.name!r}")

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options: those given, checked, and the defaults of the others.

        Raises:
            InvalidFieldError: An option it does not have, or of another type.
            NonFiniteError: A number that is not finite.
        """
        try:
            return dict(self.options.from_dict(options))
        except SteeringError as error:
            raise error.under("options") from None

    def check_counts(self, num_positive: int, num_negative: int) -> None:
        """Check that there is enough data.

        Raises:
            FitError: There is not, or pairs are asked for and the counts differ.
        """
        fewest = min(num_positive, num_negative)
        if fewest < self.min_samples:
            raise FitError(
                f"{num_positive} positive and {num_negative} negative examples to fit on; "
                f"{self.name!r} expects at least {self.min_samples} of each",
                param="data",
            )
        if self.is_paired and num_positive != num_negative:
            raise FitError(
                f"{num_positive} positive and {num_negative} negative examples; {self.name!r} "
                "expects pairs, as many of one as of the other",
                param="data",
            )

    def check_options(self, options: Mapping[str, Any], samples: SampleCounts) -> None:
        """Check what options ask of the number of samples; the fitter checks the samples.

        Args:
            options: All of them, as `resolve` gives them.
            samples: How many there are.

        Raises:
            FitError, InvalidFieldError: They are too few; `param` names the option.
        """
        if self.supports is not None:
            self.supports(options, samples)

    def fit(
        self,
        positive: Mapping[int, Tensor],
        negative: Mapping[int, Tensor],
        *,
        name: str,
        site: Site = Site.RESID_POST,
        model_fingerprint: str | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        num_heads: int | None = None,
    ) -> Direction:
        """The direction of one or several layers: {layer: [N, d]} of both sets.

        A method that fits each layer on its own gives a set for each of several layers.
        `num_heads`, of the model, is needed at site `heads`.

        Raises:
            FitError: Too little data, or what the method cannot fit.
            InvalidFieldError: An option it does not have.
            SteeringError: What the method refuses.
        """
        if not positive or set(positive) != set(negative):
            raise FitError(
                f"positive has layers {sorted(positive)} and negative {sorted(negative)}; expected "
                "the same ones",
                param="layers",
            )
        for layer in positive:
            self.check_counts(len(positive[layer]), len(negative[layer]))
        settings = self.resolve(options)
        place: dict[str, Any] = {"name": name, "site": site, "model_fingerprint": model_fingerprint}
        if "num_heads" in inspect.signature(self.fitter).parameters:
            if num_heads is None:
                raise InvalidFieldError(
                    f"{self.name} has no num_heads; it is required", param="num_heads"
                )
            place["num_heads"] = num_heads
        if self.spans_layers:
            return self.fitter(positive, negative, **place, **settings)
        fitted = [
            self.fitter(positive[layer], negative[layer], layer=layer, **place, **settings)
            for layer in sorted(positive)
        ]
        return fitted[0] if len(fitted) == 1 else combine_layers(fitted, name=name)


def _rank(options: Mapping[str, Any], samples: SampleCounts) -> None:
    check_rank(options["rank"], samples.num_positive + samples.num_negative, samples.width)


def _heads(options: Mapping[str, Any], samples: SampleCounts) -> None:
    for count in (samples.num_positive, samples.num_negative):
        check_held_out(count, options["validation"])
    if options["top_k"] is not None:
        check_top_k(options["top_k"], samples.num_layers * samples.num_heads)


_ALL: Final = (
    Method("mean_difference", fit_mean_difference, DirectionKind.VECTOR, Operation.ADD, 8),
    Method("mean_centring", fit_mean_centring, DirectionKind.VECTOR, Operation.ADD, 8),
    Method("pair_pca", fit_pair_pca, DirectionKind.VECTOR, Operation.ADD, 8, is_paired=True),
    Method("pca", fit_pca, DirectionKind.BASIS, Operation.ABLATE, 8, supports=_rank),
    Method("probe", fit_probe, DirectionKind.PROBE, None, 16),
    Method("leace", fit_leace, DirectionKind.TRANSPORT, Operation.TRANSPORT, 16),
    Method(
        "gaussian_transport",
        fit_gaussian_transport,
        DirectionKind.TRANSPORT,
        Operation.TRANSPORT,
        16,
        is_sequential=True,
        supports=_rank,
    ),
    Method(
        "linear_act",
        fit_linear_act,
        DirectionKind.DIAGONAL,
        Operation.DIAGONAL,
        16,
        is_sequential=True,
    ),
    Method("null_space", fit_null_space, DirectionKind.TRANSPORT, Operation.TRANSPORT, 16),
    Method(
        "angular_plane",
        fit_angular_plane,
        DirectionKind.PLANE,
        Operation.ROTATE_TO,
        8,
        spans_layers=True,
        min_layers=3,
    ),
    Method(
        "iti_heads",
        fit_iti_heads,
        DirectionKind.VECTOR,
        Operation.ADD,
        20,
        spans_layers=True,
        only_site=Site.HEADS,
        supports=_heads,
    ),
)

METHODS: Final[Mapping[str, Method]] = MappingProxyType({method.name: method for method in _ALL})
"""Every method by name."""


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        InvalidFieldError: There is none; lists those that are.
    """
    if name not in METHODS:
        raise InvalidFieldError(
            f"method is {short_repr(name)}; expected one of {', '.join(METHODS)}", param="method"
        )
    return METHODS[name]
