"""Where the tutorials explain a mistake of the model, whichever exercise it was made in."""

from fnmatch import fnmatchcase

from vitscratch.exercises.errors import STEP

_WRONG = "How this goes wrong"
_PATCHES, _TOKENS, _ATTENTION, _BLOCK = (
    "01_patches.ipynb",
    "02_tokens.ipynb",
    "03_attention.ipynb",
    "04_encoder_block.ipynb",
)

# The first line that fits counts: names of mistakes, the tutorial, the heading.
_TABLE = (
    ("pe_reshape_not_transpose pe_column_major", _PATCHES, _WRONG),
    ("pe_channel_last pe_pixels_transposed", _PATCHES, "The order of pixels in a patch"),
    ("pe_split_reversed pe_picture_transposed pe_detached", _PATCHES, "Without loops"),
    ("pe_no_stride", _PATCHES, "The same layer as a convolution"),
    ("pe_*", _PATCHES, "From patch to token"),
    ("vit_cls_batch_dim vit_pos_batch_dim vit_pos_random_each_forward", _TOKENS, _WRONG),
    ("vit_cls_added tok_no_class_token tok_cls_first_picture", _TOKENS, "A token for the answer"),
    ("tok_no_position tok_pos_* vit_pos_after_blocks", _TOKENS, "A position for each token"),
    ("vit_cls_appended vit_pos_not_on_cls tok_not_* tok_detached tok_scaled tok_norm tok_dropout", _TOKENS, "Eq. 1"),
    ("attn_split_view attn_softmax_queries attn_scale_embed_dim", _ATTENTION, _WRONG),
    ("attn_no_scale attn_scale_*", _ATTENTION, "Why the scores are scaled"),
    ("attn_heads_reversed attn_out_* attn_no_out_* attn_residual_inside", _ATTENTION, "The whole layer"),
    ("attn_packing_* attn_heads_* attn_one_head attn_merge_*", _ATTENTION, "Several heads"),
    (
        "attn_q* attn_kv_swapped attn_no_qkv_bias attn_value_* attn_key_* attn_layer_* attn_activation_on_qkv",
        _ATTENTION,
        "Where queries, keys and values come from",
    ),
    ("attn_*", _ATTENTION, "All queries at once"),
    ("mlp_gelu_tanh mlp_quick_gelu", _BLOCK, _WRONG),
    ("mlp_*", _BLOCK, "The MLP"),
    ("vit_plain_list", "05_vit_b_16.ipynb", _WRONG),
    ("enc_blocks_unused vit_frozen vit_dropout", "05_vit_b_16.ipynb", "The whole model"),
    ("enc_no_*_residual enc_post_norm enc_norm_on_branch_output enc_eps_*", _BLOCK, _WRONG),
    ("enc_norm_on_residual", _BLOCK, "The sum"),
    ("enc_norm_* enc_no_norm enc_rms_norm enc_shared_norm", _BLOCK, "LayerNorm, token by token"),
    ("enc_*", _BLOCK, "The sum"),
    (
        "vit_depth_* vit_block_order vit_blocks_* vit_residual_* vit_norm_* vit_long_* vit_no_final_norm "
        "vit_final_norm_* vit_m* vit_sum_pool vit_other_token vit_first_picture vit_head_* vit_activation_* "
        "vit_softmax",
        "05_vit_b_16.ipynb",
        "The whole model",
    ),
    ("cv_prefix* cv_lstrip cv_block_number cv_[!ps]*", "05_vit_b_16.ipynb", "torchvision's names"),
    ("cv_pos_*", "08_transfer.ipynb", "Pictures of another size"),
    ("tr_zero_grad ev_mean_of_means ev_drop_last tf_frozen_train_mode tf_opt_before_head", "", _WRONG),
)
# Everything else that goes wrong in an exercise, by its step; "" stands for all other steps.
_OF_EXERCISE = {
    "train_step": {"": "One step"},
    "evaluate": {"": "Measure exactly"},
    "split": {"": "Three parts of the pictures"},
    "freeze_and_replace_head": {STEP: "", "head": "A new head", "": "Freeze"},
}


def where_to_read(mistake: str, exercise: str = "", step: str = "") -> tuple[str, str]:
    """Tutorial and heading that explain a mistake; "" for the exercise's own tutorial, and for no heading of it.

    Args:
        mistake: name in the bank; of "one + other" the first counts.
        exercise, step: where it was made, for those that have no line of their own.
    """
    name = mistake.partition(" + ")[0]
    for patterns, tutorial, heading in _TABLE:
        if any(fnmatchcase(name, pattern) for pattern in patterns.split()):
            return tutorial, heading
    sections = _OF_EXERCISE.get(exercise, {})
    return "", sections.get(step, sections.get("", ""))
