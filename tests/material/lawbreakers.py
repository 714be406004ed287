"""A combination for each way to break a law, and what is said of it."""

from __future__ import annotations

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import CombinationCost, CombinationPlan, HeadCombination, ParameterSpec
from mhakit_builtins.max import Max


class Sound(HeadCombination):
    """Scale the heads by a copied parameter, concatenate and project; all of it is right."""

    name = "sound"
    reference = "a test"

    def validate(self, shape):
        if shape.num_heads < 2:
            raise ParameterError("num_heads must be at least 2")

    def parameters(self, shape):
        return {
            "gain": ParameterSpec((shape.num_heads,), "ones"),
            "weight": ParameterSpec((shape.concat_width, shape.model_width), "uniform_fan_in"),
        }

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        gain = parameters["gain"][:, None, None].copy()
        return CombinationPlan(heads.shape[1], parameters["weight"], head_weights=gain)

    def plan_vjp(self, d_plan, heads, parameters, **given):
        return None, None, {"gain": d_plan.head_weights.ravel()}

    def fold(self, parameters, shape):
        return np.repeat(parameters["gain"], shape.head_width)[:, None] * parameters["weight"], None


class Scribbling(Sound):
    def plan(self, heads, parameters, **given):
        plan = super().plan(heads, parameters, **given)
        if heads.flags.writeable:
            heads *= 2
        return plan


class FailingOnNoWords(Sound):
    def plan(self, heads, parameters, **given):
        heads.reshape(heads.shape[0], heads.shape[2], -1)
        return super().plan(heads, parameters, **given)


class Widening(Sound):
    def plan(self, heads, parameters, **given):
        plan = super().plan(heads, parameters, **given)
        return CombinationPlan(
            plan.groups, plan.weight, head_weights=plan.head_weights * np.float64(1)
        )


class WideningBack(Sound):
    def plan_vjp(self, d_plan, heads, parameters, **given):
        return None, None, {"gain": d_plan.head_weights.ravel() * np.float64(1)}


class Steep(Sound):
    def plan_vjp(self, d_plan, heads, parameters, **given):
        return None, None, {"gain": 1.001 * d_plan.head_weights.ravel()}


class WithoutGradient(Sound):
    plan_vjp = HeadCombination.plan_vjp


class FoldingHalf(Sound):
    def fold(self, parameters, shape):
        return parameters["weight"], None


class FoldingTransposed(Sound):
    def fold(self, parameters, shape):
        return super().fold(parameters, shape)[0].T, None


class Understating(Sound):
    linear_in_heads = False


class Overstating(Max):
    linear_in_heads = True


class Mirror(HeadCombination):
    """Row t is the average of row T - 1 - t, projected: it sees the future."""

    name, reference = "mirror", "a test"

    def parameters(self, shape):
        return {"weight": ParameterSpec((shape.head_width, shape.model_width), "uniform_fan_in")}

    def forward(self, heads, parameters, *, hidden_states, training, rng):
        mean = heads.mean(axis=1)[:, ::-1]
        return mean @ parameters["weight"], (mean, heads.shape)

    def backward(self, d_output, residuals, parameters):
        mean, shape = residuals
        d_mean = (d_output @ parameters["weight"].T)[:, ::-1] / shape[1]
        d_weight = np.einsum("bte,btm->em", mean, d_output)
        return np.broadcast_to(d_mean[:, None], shape), None, {"weight": d_weight}


class BatchMean(Mirror):
    """Rows of a batch share their mean."""

    def forward(self, heads, parameters, **given):
        mean = heads.mean(axis=1)
        mean = mean + mean.mean(axis=0) if mean.size else mean
        return mean @ parameters["weight"], (mean, heads.shape)

    def backward(self, d_output, residuals, parameters):
        mean, shape = residuals
        d_mean = d_output @ parameters["weight"].T / shape[1]
        d_mean = d_mean + d_mean.mean(axis=0)
        d_weight = np.einsum("bte,btm->em", mean, d_output)
        return np.broadcast_to(d_mean[:, None], shape), None, {"weight": d_weight}


class NormWithoutEpsilon(Sound):
    linear_in_heads = False

    def parameters(self, shape):
        return {"weight": super().parameters(shape)["weight"]}

    def plan(self, heads, parameters, **given):
        scale = 1 / np.sqrt(np.square(heads).mean(axis=-1, keepdims=True))
        return CombinationPlan(heads.shape[1], parameters["weight"], head_weights=scale)

    def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        d_square = d_plan.head_weights * -0.5 * plan.head_weights**3
        return d_square * 2 * heads / heads.shape[-1], None, {}

    fold = HeadCombination.fold


class DroppingAll(Sound):
    """DropHead as it is often written: H over the number of heads that were kept."""

    stochastic = True

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        gain = parameters["gain"][:, None, None].copy()
        if training:
            kept = (rng.random((heads.shape[1], 1, 1)) > 1e-9).astype(heads.dtype)
            gain *= kept * heads.shape[1] / kept.sum()
        return CombinationPlan(heads.shape[1], parameters["weight"], head_weights=gain)

    def plan_vjp(self, d_plan, heads, parameters, **given):
        return None, None, {"gain": d_plan.head_weights.ravel()}


class DrawingInSecret(Sound):
    def plan(self, heads, parameters, *, hidden_states, training, rng):
        plan = super().plan(
            heads, parameters, hidden_states=hidden_states, training=training, rng=rng
        )
        if training:
            plan.head_weights[...] *= np.random.default_rng().random()
        return plan


class Miscounting(Sound):
    def cost(self, shape, B, T):
        cost = super().cost(shape, B, T)
        return CombinationCost(cost.flops, cost.bytes, cost.parameters - 1, cost.output_rank)


class Overrating(Sound):
    def cost(self, shape, B, T):
        cost = super().cost(shape, B, T)
        return CombinationCost(cost.flops, cost.bytes, cost.parameters, cost.output_rank + 1)


class Cancelling(HeadCombination):
    """The sum of the heads, but by way of a number so large that backends round it differently."""

    name, reference = "cancelling", "a test"

    def validate(self, shape):
        Sound.validate(self, shape)

    def parameters(self, shape):
        return {"weight": ParameterSpec((shape.head_width, shape.model_width), "uniform_fan_in")}

    def added(self, heads):
        signs = np.zeros((heads.shape[1], 1, 1), heads.dtype)
        signs[0], signs[1] = 1e4, -1e4
        return np.where(heads == 0, 0, signs / np.where(heads == 0, 1, heads)).astype(heads.dtype)

    def plan(self, heads, parameters, **given):
        return CombinationPlan(1, parameters["weight"], head_weights=1 + self.added(heads))

    def plan_vjp(self, d_plan, heads, parameters, **given):
        safe = np.where(heads == 0, 1, heads)
        return -self.added(heads) / safe * d_plan.head_weights, None, {}


class DividingByOtherHeads(Sound):
    def validate(self, shape):
        pass

    def plan(self, heads, parameters, **given):
        plan = super().plan(heads, parameters, **given)
        others = heads.shape[1] - 1
        plan.head_weights[...] *= others / others
        return plan


class RefusingWithoutAName(Sound):
    def validate(self, shape):
        if shape.num_heads < 2:
            raise ValueError("no")


WRONG = {
    Scribbling: ("inputs", r"at B=1, H=2, T=1, E=1, M=1 .*: heads was written"),
    FailingOnNoWords: ("shapes", r"it raised PluginError: combination 'sound' must plan without"),
    Widening: ("dtype", r"head_weights is float64 for float32 heads"),
    WideningBack: ("dtype", r"plan_vjp's gradient of 'gain' is float64 for float32 heads"),
    Steep: ("gradient", r"at B=1, H=2, T=1, E=1, M=1 on .*: along a direction of parameters\['gain'\] the gradient gives .*, finite differences"),
    WithoutGradient: ("gradient", r"must return a gradient of 'gain'"),
    FoldingHalf: ("fold", r"at B=1, H=2, T=1, E=1, M=1 .*: what runs differs from the folded matrix by"),
    FoldingTransposed: ("fold", r"it gives \(.*\) and None in place of"),
    Understating: ("linear_in_heads", r"it says False, but f\(Z\) - f\(0\) adds up; say linear_in_heads = True"),
    Overstating: ("linear_in_heads", r"it says True, but with f\(0\) taken away"),
    Mirror: ("rows", r"at B=1, H=2, T=2, E=1, M=1 .*: row 0 of batch 0 differs from it before"),
    BatchMean: ("rows", r"at B=2, H=2, T=1, E=1, M=1 "),
    NormWithoutEpsilon: ("no_heads", r"with heads of 0 the output has \d+ NaN or inf"),
    DroppingAll: ("no_heads", r"with the lowest draws the output has"),
    DrawingInSecret: ("seed", r"two runs of the same seed differ by"),
    Miscounting: ("cost", r"at B=1, H=2, T=1, E=1, M=1 .*: it says 3 parameters, there are 4"),
    Overrating: ("cost", r"many rows have rank 1, not the 2 that it says"),
    Cancelling: ("backends", r"on backend 'cpu': .* on cpu differs from on reference by"),
    DividingByOtherHeads: ("one_head", r"at B=1, H=1, T=1, E=1, M=1 .*: .*ZeroDivisionError"),
    RefusingWithoutAName: ("one_head", r"must validate and give parameters without an error, got ValueError: no"),
}  # fmt: skip
