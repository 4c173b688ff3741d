"""The mistakes of a whole model (exercise 8), and the steps that they belong to."""

from dataclasses import replace

from vitscratch.exercises.checks import encoder_block, prepending, projecting
from vitscratch.exercises.checks.naming import table
from vitscratch.exercises.exercise import Mistake, Problem

PATCHES, CLASS_TOKEN, POSITION = "patch embedding", "class token", "position embedding"
BLOCKS, NORM, POOLING, HEAD = "encoder blocks", "final norm", "pooling", "head"
NUDGES = {
    "parameters": "Print the names and shapes of `named_parameters()`: what of Eq. 1 to 4 is missing, or there twice?",
    POSITION: "Swap two patches of a picture: what differs in what the first block gets?",
    BLOCKS: "Print the sum of x before and after every block: which blocks run, in which order, on what?",
    NORM: "What happens to a token between the last block and the head? Eq. 4 has one LN.",
    POOLING: "Which tokens does the head read? Eq. 4 has the index 0.",
    HEAD: "Set the head's weight to zero: the logits are its bias then, for every picture. Are yours?",
}
OF_MODEL = table(
    """
    vit_plain_list | parameters | You keep the blocks in a plain Python list, so that PyTorch does not know them: they do not learn, are not saved and not moved; use nn.ModuleList. | nn.ModuleList or nn.Sequential registers what it holds.
    vit_pos_after_blocks | position embedding | You add the positions too late; attention should know them, so they should be added before the first block. | Eq. 1 ends in + E_pos, and z_0 is what the first block gets.
    enc_blocks_unused | encoder blocks | You wrote an encoder block in this file and built the model of another one; it should use yours. | Which class do you call where the blocks are made?
    vit_depth_minus_one | encoder blocks | You use one block too few: the last (or the first) is never run, or what it gives is not used; all of them should be. | Count the passes of the loop; range and slices leave out their end.
    vit_depth_ignored | encoder blocks | You make another number of blocks; it should be depth. | Make one block for each i in range(depth).
    vit_blocks_shared | encoder blocks | You use one block with one set of weights again and again; each of the depth blocks should have its own. | [block] * depth repeats the same object: call the class once for every block.
    vit_blocks_unused | encoder blocks | You do not use what the blocks compute; it should go on to the norm and the head. | Does x become what a block returns?
    vit_block_order | encoder blocks | You run the blocks in another order; it should be that in which they are kept. | blocks[0] is the first to see the tokens.
    vit_residual_stream_dropped | encoder blocks | You give the embedding to every block; each should get what the block before it returned. | In the loop, what goes in and what comes out must have the same name.
    vit_norm_every_block | encoder blocks | You apply the final norm at every block; it should come once, after the last. | Look at what is inside the loop.
    vit_long_residual | encoder blocks | You add the embedding once more after the blocks; nothing should be added there. | The residuals are inside the blocks; nothing bridges all of them.
    vit_norm_before_blocks | final norm | You apply the final norm before the blocks; it should come once, after the last. | Each block has norms of its own; the model's own comes at the end.
    vit_no_final_norm | final norm | Your final norm is missing; Eq. 4 normalises the class token before the head reads it. | nn.LayerNorm(embed_dim, eps=1e-6) after the last block.
    vit_final_norm_twice | final norm | You apply the final norm twice; once is right. | Count the calls.
    vit_final_norm_added | final norm | You add the final norm to the tokens; it should replace them. | No residual here.
    vit_final_norm_other | final norm | Your final norm is another function; it should be LayerNorm over the width, with a weight and a bias. | nn.LayerNorm(embed_dim, eps=1e-6), with its defaults otherwise.
    vit_mean_with_cls | pooling | Your head reads the mean over all tokens, class token included; it should read the class token alone. | Index 0 of the axis of tokens, no mean.
    vit_mean_pool | pooling | Your head reads the mean of the patches' tokens; in this exercise, as in the paper, it should read the class token alone. | Index 0 of the axis of tokens, no mean.
    vit_max_pool | pooling | Your head reads the largest numbers over the tokens; it should read the class token alone. | Index 0 of the axis of tokens, no maximum.
    vit_sum_pool | pooling | Your head reads a sum of tokens; it should read the class token alone. | Index 0 of the axis of tokens, no sum.
    vit_other_token | pooling | Your head reads another token; it should read the class token, which is token 0. | Index 0 of the axis of tokens.
    vit_first_picture | pooling | You read the first picture alone; every picture should get logits of its own, from its own class token. | x[:, 0] is token 0 of every picture; x[0] is the first picture. | Of x, (b, n, d): what does x[0] take, and which axis are the tokens on?
    vit_head_all_tokens | head | Your head reads all tokens side by side; it should read the class token alone. | Its weight is (num_classes, embed_dim).
    vit_head_no_bias | head | Your head has no bias, or does not add it; it should. | nn.Linear has one by default.
    vit_head_activation | head | You put an activation behind the head; there should be none: logits may be negative. | Nothing comes after the head.
    vit_activation_before_head | head | You put an activation before the head; it should read the normalised class token as it is. | Nothing stands between the final norm and the head.
    vit_head_norm | head | You normalise the logits; they should stay as the head gives them. | Nothing comes after the head.
    vit_head_scaled | head | You scale the logits; they should stay as the head gives them. | Nothing comes after the head.
    vit_softmax | head | You put softmax (or sigmoid) into the model; it should return logits, since the loss (cross_entropy) does softmax itself. | Return what the head gives.
    vit_dropout | head | You leave dropout on in eval mode, so that two calls differ; there it should do nothing. | nn.Dropout, made in __init__, knows of eval mode; F.dropout has to be told, training=self.training.
    vit_frozen | parameters | You cut the gradient off from some of your parameters, so that they never learn; all should get one. | No detach, no .data, no torch.no_grad between the pictures and the logits. | After a backward pass, which parameters have a .grad of None?
    """,  # noqa: E501 - a table
    NUDGES,
)
MISTAKES: dict[str, Mistake] = {
    **{name: replace(mistake, step=BLOCKS) for name, mistake in encoder_block.MISTAKES.items()},
    **{
        name: replace(mistake, step=PATCHES, section="The whole model") for name, mistake in projecting.MISTAKES.items()
    },
    **prepending.MISTAKES,
    **OF_MODEL,
}


def of_the_norm(problem: Problem) -> Problem:
    """eps is a mistake of the blocks' norms, too; here it is the final norm's."""
    return replace(problem, step=NORM) if str(problem.mistake).startswith("enc_eps") else problem
