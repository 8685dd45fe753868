"""MarianMT folders give what `transformers` makes of them."""

from __future__ import annotations

import copy
import json
import os

import pytest
import torch

from loquent.speech.nn.streaming import Chunk
from loquent.translate.marian.model import MarianTranslator
from loquent.translate.model import Search

CPU = torch.device("cpu")


def draft(model, text, **search):
    """What a model makes of a text that has ended."""
    state = model.initial_state(1)
    rows = torch.tensor([0])
    model.read([model.codec.encode(text)], [True], state, rows)
    (found,) = model.draft([Search(ended=True, **search)], state, rows)
    return found


def all_logits(network, source, target):
    """Scores of the piece behind each of a decoder's pieces."""
    source, target = torch.tensor([source]), torch.tensor([target])
    frames = torch.tensor([source.shape[1]])
    past = network.past(1, target.shape[1])
    keys = network.encode(source, frames)
    row = torch.tensor([0])
    return network.logits(network.decode(Chunk.of(target), past, row, keys, row, frames)[0])[0]


def generate(theirs, model, text, pieces=16, **options):
    source = torch.tensor([[*model.codec.encode(text), 0]])
    options = {
        "num_beams": 1,
        "max_new_tokens": pieces,
        "bad_words_ids": [[one] for one, silent in enumerate(model.codec.silent) if silent],
    } | options
    out = theirs.generate(input_ids=source, attention_mask=torch.ones_like(source), do_sample=False, **options)
    return [piece for piece in out[0, 1:].tolist() if piece != 0]


def test_the_logits_are_theirs(opus, tiny):
    folder, theirs = opus
    model = MarianTranslator.load(folder, CPU)
    start = theirs.config.decoder_start_token_id
    for text in tiny.sentences("en", 5):
        source = [*model.codec.encode(text), 0]
        target = [start, *range(3, 20)]
        with torch.no_grad():
            expected = theirs(torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0]
        torch.testing.assert_close(all_logits(model.network, source, target), expected, rtol=0, atol=1e-4)


def test_pieces_and_text_are_those_of_the_tokenizer(opus, tiny):
    from transformers import MarianTokenizer

    folder, _ = opus
    model = MarianTranslator.load(folder, CPU)
    theirs = MarianTokenizer(
        *(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")), source_lang="en", target_lang="es"
    )
    for text in [*tiny.sentences("en", 10), "what is unknown: Ω", "pads and ends"]:
        assert [*model.codec.encode(text), 0] == theirs(text).input_ids
    for text in tiny.sentences("es", 10):
        pieces = theirs(text_target=text).input_ids[:-1]
        assert model.target_codec.encode(text) == pieces
        assert model.target_codec.decode(pieces) == theirs.decode(pieces) == text


def test_greedy_text_is_theirs(opus, tiny):
    folder, theirs = opus
    model = MarianTranslator.load(folder, CPU)
    texts = tiny.sentences("en", 6)
    found = [draft(model, text, most_pieces=16).pieces for text in texts]
    assert found == [generate(theirs, model, text) for text in texts]
    assert len({tuple(one) for one in found}) == len(texts)  # they differ, so the source is read


def test_the_best_of_a_beam_is_theirs(opus, tiny):
    folder, theirs = opus
    model = MarianTranslator.load(folder, CPU)
    for text in tiny.sentences("en", 3):
        expected = generate(theirs, model, text, num_beams=3, length_penalty=1.0, early_stopping=True)
        assert draft(model, text, most_pieces=16, beam=3).pieces == expected


@pytest.mark.parametrize("pickled", [False, True])
def test_any_file_of_weights_is_read(opus, tiny, tmp_path, pickled):
    _, theirs = opus
    folder = tmp_path / "en-es"
    tiny.write_vocabulary((folder.mkdir(), folder)[1])
    theirs.config.save_pretrained(folder)
    if pickled:
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    else:
        copy.deepcopy(theirs).half().save_pretrained(folder)
    model = MarianTranslator.load(folder, CPU)
    expected = theirs.state_dict()["model.decoder.layers.1.fc2.weight"]
    torch.testing.assert_close(model.network.decoder[1].feed.second.weight, expected, rtol=1e-3, atol=1e-3)


def test_pickles_of_objects_are_refused(opus, tmp_path):
    folder, _ = opus
    for file in folder.iterdir():
        if "safetensors" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({"model.shared.weight": os.system}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is refused"):
        MarianTranslator.load(tmp_path, CPU, source="en", target="es")


@pytest.fixture(scope="module")
def romance(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "opus-mt-en-romance"
    return folder, tiny.save_hugging_face(folder, ("es", "pt"))


class TestTargets:
    """Models that write several languages."""

    def test_the_tag_comes_first(self, romance, tiny):
        folder, theirs = romance
        models = {code: MarianTranslator.load(folder, CPU, "en", code) for code in ("es", "pt")}
        text = tiny.sentences("en")[0]
        for code, model in models.items():
            tag = json.loads((folder / "vocab.json").read_text())[f">>{code}<<"]
            source = torch.tensor([[tag, *model.codec.encode(text), 0]])
            bad = [[one] for one, silent in enumerate(model.codec.silent) if silent]
            out = theirs.generate(source, num_beams=1, max_new_tokens=16, bad_words_ids=bad)[0, 1:].tolist()
            assert draft(model, text, most_pieces=16).pieces == [piece for piece in out if piece]
        assert models["es"].fingerprint != models["pt"].fingerprint

    def test_another_language_is_refused(self, romance):
        with pytest.raises(ValueError, match="give target= one of es, pt"):
            MarianTranslator.load(romance[0], CPU, "en", "de")

    def test_numbers_of_source_pieces_do_not_count_the_tag(self, romance, tiny):
        model = MarianTranslator.load(romance[0], CPU, "en", "es")
        text = tiny.sentences("en")[0]
        attended = draft(model, text, most_pieces=16).attended
        assert set(attended) <= set(range(len(model.codec.encode(text))))


class TestLanguages:
    """Where the codes of the languages come from."""

    def test_the_name_of_the_folder(self, opus):
        model = MarianTranslator.load(opus[0], CPU)
        assert (model.source, model.target) == ("en", "es")

    def test_arguments_go_first(self, opus):
        model = MarianTranslator.load(opus[0], CPU, target="ca")
        assert (model.source, model.target) == ("en", "ca")

    def test_a_folder_that_does_not_say(self, opus, tmp_path):
        os.symlink(opus[0], tmp_path / "model")
        with pytest.raises(ValueError, match="give source= and target="):
            MarianTranslator.load(tmp_path / "model", CPU)

    def test_the_configuration_of_the_tokenizer(self, tiny, tmp_path):
        tiny.save_hugging_face(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text('{"source_lang": "fi", "target_lang": "sv"}')
        model = MarianTranslator.load(tmp_path, CPU)
        assert (model.source, model.target) == ("fi", "sv")

    def test_the_folder_of_the_hub(self, tiny, tmp_path):
        folder = tmp_path / "models--Helsinki-NLP--opus-mt-fr-en" / "snapshots" / "0123abc"
        tiny.save_hugging_face(folder)
        model = MarianTranslator.load(folder, CPU)
        assert (model.source, model.target) == ("fr", "en")


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 10**9}, "channels is '1000000000', expected a whole number"),
        ({"encoder_layers": 50}, r"no weight 'model.encoder.layers.2.self_attn"),
        ({"encoder_ffn_dim": 64}, r"encoder.0.feed.first.weight has shape \[48, 32\], expected \[64, 32\]"),
        ({"vocab_size": 10**6, "decoder_vocab_size": 10**6}, r"source_embedding has shape .* expected \[1000000, 32\]"),
        ({"activation_function": "tanh"}, "activation_function is 'tanh'"),
        ({"decoder_start_token_id": 10**7}, "start=10000000 is none of"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is 'None'"),
        ({"encoder_attention_heads": 5}, "heads"),
    ],
)
def test_sizes_of_the_configuration_are_not_believed(tiny, tmp_path, values, message):
    tiny.save_hugging_face(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=message):
        MarianTranslator.load(tmp_path, CPU, "en", "es")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"</s>": 0}, "lack </s> or <unk>"),
        ({"</s>": 0, "<unk>": 1, "a": 10**6}, "vocabulary has 1000001 pieces"),
        ({"</s>": 0, "<unk>": 1, "a": 10**9}, "number of a piece is 1000000000"),
        ({"</s>": 0, "<unk>": 1, "a": "x"}, "number of a piece is 'x'"),
        ({"</s>": 0, "<unk>": 1, "a": 1}, "same number"),
    ],
)
def test_numbers_of_pieces_are_not_believed(tiny, tmp_path, numbers, message):
    tiny.save_hugging_face(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match=message):
        MarianTranslator.load(tmp_path, CPU, "en", "es")


def test_what_is_missing_is_named(tiny, tmp_path):
    tiny.save_hugging_face(tmp_path)
    (tmp_path / "source.spm").write_bytes(b"no such model")
    with pytest.raises(ValueError, match=r"source\.spm: not a SentencePiece model"):
        MarianTranslator.load(tmp_path, CPU, "en", "es")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected one of model\.safetensors"):
        MarianTranslator.load(tmp_path, CPU, "en", "es")
