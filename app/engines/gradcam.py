"""The last feature map of a classifier and the gradients of its logits: the inputs of heat maps.

Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) weighs the channels of the last
feature map by a logit's gradient. If the map is averaged over its area and followed by one linear layer,
the gradient is the layer's weight for every image (Zhou et al. 2016,
https://arxiv.org/abs/1512.04150): every engine can then make heat maps without computing a gradient.
Otherwise it is computed through the few layers after the map only, by torch or, on OpenVINO, by a network that was
converted from torch's computation (``app/engines/head_conversion.py``).

The map is found in the network's graph (torch.fx): it is the input of the last pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node, symbolic_trace
from torch.fx.proxy import TraceError

from app.engines.engine import Gradients

# torch.fx's errors if the network's Python depends on a tensor's values, count or length.
UNTRACEABLE = (TraceError, TypeError, RuntimeError)

POOLINGS = {nn.AdaptiveAvgPool2d, nn.functional.adaptive_avg_pool2d, "mean"}
# After the pooling these change no number, in evaluation mode.
NEUTRAL = {nn.Dropout, nn.Flatten, nn.Identity, torch.flatten, "flatten"}
SPATIAL = [2, 3]  # axes of (n, channels, height, width)


@dataclass(frozen=True)
class Ending:
    """The end of a classifier.

    Attributes:
        traced: the whole classifier.
        features: its last feature map.
        behind: the nodes after it, from the pooling to the logits.
    """

    traced: GraphModule
    features: Node
    behind: tuple[Node, ...]

    def give_features(self) -> GraphModule:
        """Return the classifier with two outputs, logits and features, and the same layers."""
        (output,) = self.traced.graph.find_nodes(op="output")
        output.args = ((self.behind[-1], self.features),)
        self.traced.recompile()
        return self.traced

    def find_weight(self, classes: int) -> torch.Tensor | None:
        """Return the gradient of every class, (classes, channels), or None if it depends on the image."""
        pooling, *layers = self.behind
        if not averages_all(self.traced, pooling):
            return None
        linear = [node for node in layers if kind(self.traced, node) is nn.Linear]
        if len(linear) > 1 or any(
            kind(self.traced, node) not in NEUTRAL | {nn.Linear} for node in layers
        ):
            return None
        if not linear:  # the features are a map for each class already, as SqueezeNet's are
            return torch.eye(classes)
        return self.traced.get_parameter(f"{linear[0].target}.weight").detach()

    def cut_head(self) -> GraphModule:
        """Return a module from features to logits, with the same layers."""
        graph = Graph()
        copies = {self.features: graph.placeholder("features")}
        for node in self.behind:
            for needed in (*node.all_input_nodes, node):
                if needed not in copies:  # the layers' own numbers, and the node itself
                    copies[needed] = graph.node_copy(needed, copies.__getitem__)
        graph.output(copies[self.behind[-1]])
        return GraphModule(self.traced, graph)


def find_ending(classifier: nn.Module) -> Ending | None:
    """Return the end of a classifier; None if its logits do not come from one pooled feature map alone."""
    try:
        traced = symbolic_trace(classifier)
    except UNTRACEABLE:
        return None
    (output,) = traced.graph.find_nodes(op="output")
    node = output.args[0][0] if isinstance(output.args[0], tuple) else output.args[0]
    behind: list[Node] = []
    while True:
        behind.insert(0, node)
        inputs = [source for source in node.all_input_nodes if source.op != "get_attr"]
        if len(inputs) != 1:
            return None
        if is_pooling(traced, node):
            # Another user of the map might change it in place.
            is_alone = set(inputs[0].users) <= {node, output}
            return Ending(traced, inputs[0], tuple(behind)) if is_alone else None
        node = inputs[0]


def kind(traced: GraphModule, node: Node) -> object:
    """Return the target of a node's call: a module's class, a function, or a method's name."""
    return type(traced.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def is_pooling(traced: GraphModule, node: Node) -> bool:
    """Return whether a node averages over areas of a feature map."""
    called = kind(traced, node)
    return called in POOLINGS and (called != "mean" or bool(node.args[1] == SPATIAL))


def averages_all(traced: GraphModule, pooling: Node) -> bool:
    """Return whether a pooling averages over the whole area."""
    if pooling.op == "call_method":
        return True
    is_module = pooling.op == "call_module"
    layer = traced.get_submodule(str(pooling.target)) if is_module else None
    return (layer.output_size if layer else pooling.args[1]) in (1, (1, 1))


def give_features(classifier: nn.Module) -> nn.Module:
    """Return a classifier with outputs (logits, features); unchanged if it has no feature map."""
    ending = find_ending(classifier)
    return classifier if ending is None else ending.give_features()


def find_gradients(classifier: nn.Module, classes: int) -> Gradients:
    """Return the gradients of a classifier with a feature map; None for another.

    Computed ones use the classifier's current device and type.
    """
    ending = find_ending(classifier)
    if ending is None:
        return None
    weight = ending.find_weight(classes)
    return HeadGradients(ending.cut_head()) if weight is None else weight.float().cpu().numpy()


class HeadGradients:
    """Gradients computed by torch.

    Attributes:
        head: the layers from the features to the logits.
    """

    def __init__(self, head: GraphModule) -> None:
        self.head = head

    def __call__(self, features: np.ndarray, label: int) -> np.ndarray:
        """Return one class's gradient, summed over the map's area; the layers keep no gradient.

        Args:
            features: (channels, height, width) float32, of one image.
            label: the class.

        Returns:
            (channels,) float32.
        """
        like = next(self.head.parameters())
        leaf = torch.from_numpy(features).to(like.device, like.dtype).unsqueeze(0)
        with torch.enable_grad():
            logit = self.head(leaf.requires_grad_())[0, label]
            (gradient,) = torch.autograd.grad(logit, leaf)
        total: np.ndarray = gradient.float().sum(dim=(0, 2, 3)).cpu().numpy()
        return total
