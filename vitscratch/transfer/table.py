"""What of a model is trained, as a table."""

from collections.abc import Sequence

from torch import nn

from vitscratch.randomness import random_state_kept


def trainable_table(model: nn.Module, input_size: Sequence[int]) -> str:
    """torchinfo's table of a model's layers, their outputs, parameters, and whether they are trained.

    A layer is trained "True", "False" or, if some of its layers are, "Partial". The last line counts them.

    Args:
        model: any classifier; one picture is put through it, and it stays as it is.
        input_size: of a batch, (b, c, H, W).

    Raises:
        ValueError: pictures of this size do not fit the model.
    """
    from torchinfo import summary

    modes = [(layer, layer.training) for layer in model.modules()]
    parameters = list(model.parameters())
    try:
        with random_state_kept(0):  # torchinfo draws its picture at random
            table = summary(
                model,
                input_size=tuple(input_size),
                dtypes=[parameters[0].dtype],
                device=parameters[0].device,
                col_names=("output_size", "num_params", "trainable"),
                row_settings=("var_names",),
                verbose=0,
            )
    except RuntimeError as error:  # torchinfo's, around the model's
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"input_size {tuple(input_size)} does not fit the model: {reason}") from error
    finally:
        for layer, training in modes:
            layer.training = training
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    rows = str(table).partition("Total params")[0]  # what follows, of arithmetic and memory, is rough for a ViT
    return f"{rows}Trained: {trained:,} of {total:,} parameters ({trained / total:.3%})"
