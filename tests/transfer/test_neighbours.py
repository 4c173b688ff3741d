"""k nearest neighbours beside scikit-learn's, and the weighted vote by hand."""

import pytest
import torch
from torch.testing import assert_close

from vitscratch.transfer import nearest_neighbours, neighbour_accuracy, neighbours


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    centres = torch.randn(5, 7).double()
    labels, others = torch.arange(101) % 5, torch.arange(43) % 5
    lengths = [torch.rand(n, 1).double() * 50 + 0.02 for n in (101, 43)]  # which a cosine does not see
    features = (centres[labels] + 1.5 * torch.randn(101, 7)) * lengths[0]
    return features, labels, (centres[others] + 1.5 * torch.randn(43, 7)) * lengths[1], others


def test_plain_votes_agree_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    features, labels, queries, others = data()
    ks = (1, 5, 20, 101)
    found = nearest_neighbours(features, labels, queries, ks, weighted=False)
    for k in ks:
        model = KNeighborsClassifier(k, metric="cosine").fit(features.numpy(), labels.numpy())
        assert found[k].tolist() == model.predict(queries.numpy()).tolist()
        euclidean = KNeighborsClassifier(k).fit(features.numpy(), labels.numpy()).predict(queries.numpy())
        assert k == 101 or found[k].tolist() != euclidean.tolist()  # the lengths would have been seen
    accuracy = neighbour_accuracy(features, labels, queries, others, ks, weighted=False)
    assert accuracy == {k: pytest.approx(float((found[k] == others).double().mean())) for k in ks}
    monkeypatch.setattr(neighbours, "_SIMILARITIES", 101 * 8)  # 43 queries, 8 at a time
    assert_close(nearest_neighbours(features, labels, queries, ks, weighted=False), found, rtol=0, atol=0)


def test_weighted_votes_by_hand() -> None:
    features, labels, queries, _ = data()
    found = nearest_neighbours(features, labels, queries, (5, 20))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], features[None], dim=2)
    for k in (5, 20):
        for row, classes in zip(cosine, found[k], strict=True):
            votes = [0.0] * 5
            for number in row.argsort(descending=True)[:k].tolist():
                votes[int(labels[number])] += float((row[number] / 0.07).exp())
            assert votes.index(max(votes)) == int(classes)
    plain = nearest_neighbours(features, labels, queries, (20,), weighted=False)
    assert plain[20].tolist() != found[20].tolist()


def test_never_more_similarities_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, k: sizes.append(self.numel()) or topk(self, k))
    monkeypatch.setattr(neighbours, "_SIMILARITIES", 500)
    features, labels, queries, _ = data()
    nearest_neighbours(features, labels, queries)
    assert max(sizes) <= 500 and sum(sizes) == 101 * 43


@pytest.mark.parametrize("ks", [(), (0, 1), (1, 102)])
def test_numbers_of_neighbours_that_there_are_not(ks: tuple[int, ...]) -> None:
    features, labels, queries, _ = data()
    with pytest.raises(ValueError, match=r"ks \(.*\): expected numbers of neighbours in 1\.\.101"):
        nearest_neighbours(features, labels, queries, ks)
