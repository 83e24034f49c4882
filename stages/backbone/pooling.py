"""Pools a feature map, or the tokens of a transformer, into one row of features per image. Needs nothing but Keras."""

import keras


def pooled(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """(n, height, width, features) -> (n, features), or twice as many with "concat"."""
    average = keras.layers.GlobalAveragePooling2D(name="average")
    maximum = keras.layers.GlobalMaxPooling2D(name="maximum")
    if pooling == "concat":
        return keras.layers.Concatenate(name="average_and_maximum")([average(x), maximum(x)])
    return average(x) if pooling == "avg" else maximum(x)


def pooled_tokens(x: keras.KerasTensor, pooling: str, others: int) -> keras.KerasTensor:
    """(n, tokens, features) -> (n, features), or twice as many with "concat".

    Args:
        pooling: "class_token" takes the first token; all other kinds pool the tokens of the patches alone.
        others: how many tokens precede those of the patches: the class token first, if there is one, then registers.
    """
    tokens, features = x.shape[1:]
    if pooling == "class_token":
        first = keras.layers.Cropping1D((0, tokens - 1), name="class_token")(x)
        return keras.layers.Reshape((features,), name="features")(first)
    patches = keras.layers.Cropping1D((others, 0), name="patches")(x) if others else x
    average = keras.layers.GlobalAveragePooling1D(name="average")
    maximum = keras.layers.GlobalMaxPooling1D(name="maximum")
    if pooling == "concat":
        return keras.layers.Concatenate(name="average_and_maximum")([average(patches), maximum(patches)])
    return average(patches) if pooling == "avg" else maximum(patches)
