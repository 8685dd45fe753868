"""Marian's own files: ``.npz``, and the ``.bin`` of Firefox's students."""

from __future__ import annotations

import gzip
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from loquent.speech.nn.streaming import Chunk
from loquent.translate.marian.containers import read_container
from loquent.translate.marian.model import MarianTranslator
from loquent.translate.marian.native import read_native
from loquent.translate.marian.network import START, MarianNetwork

CPU = torch.device("cpu")
SOURCE, TARGET = [5, 17, 9, 30, 22, 11, 0], [7, 7, 31, 2, 19, 40, 8, 25]


def network(file, **changes):
    config, weights = read_native(file)
    made = MarianNetwork(replace(config, **changes))
    made.load_state_dict(weights)
    return made.eval()


@torch.no_grad()
def logits(network, source, target, cuts=()):
    """Scores of each piece and of the one behind, in calls that are cut at some places."""
    pieces, frames, row = torch.tensor([[START, *target]]), torch.tensor([len(source)]), torch.tensor([0])
    keys, past = network.encode(torch.tensor([source]), frames), network.past(1, pieces.shape[1])
    found = []
    for begin, end in zip((0, *cuts), (*cuts, pieces.shape[1]), strict=True):
        chunk, written = Chunk.of(pieces[:, begin:end]), torch.tensor([begin])
        found.append(network.logits(network.decode(chunk, past, written, keys, row, frames)[0])[0])
    return torch.cat(found)


def attention_options(tiny, **changes):
    return (
        tiny.STUDENT
        | {"transformer-decoder-autoreg": "self-attention", "transformer-ffn-activation": "swish"}
        | changes
    )


PRE_NORM = {"transformer-preprocess": "n", "transformer-postprocess": "da", "transformer-postprocess-top": "n"}


class TestEquations:
    """The network gives what the equations say, in plain numpy."""

    @pytest.mark.parametrize("norms", [{}, PRE_NORM])
    @pytest.mark.parametrize("decoder", ["rnn", "self-attention"])
    def test_logits(self, tiny, reference, tmp_path, decoder, norms):
        options = attention_options(tiny, **norms) | {"transformer-decoder-autoreg": decoder}
        weights = tiny.random_weights(options, 50)
        tiny.save_npz(tmp_path / "model.npz", options, weights)
        expected = torch.from_numpy(reference.Reference(options, weights).logits(SOURCE, TARGET)).float()
        made = network(tmp_path / "model.npz")
        for cuts in ((), (1, 5), range(1, len(TARGET) + 1)):
            torch.testing.assert_close(logits(made, SOURCE, TARGET, cuts), expected, rtol=0, atol=1e-4)

    def test_the_weights_of_transformers_by_marians_names(self, opus, tiny, tmp_path):
        _, theirs = opus
        options = attention_options(tiny)
        weights = tiny.marian_names(theirs)
        # Theirs has two sizes of feed-forward layers, as newer Marian may.
        options |= {"transformer-decoder-dim-ffn": theirs.config.decoder_ffn_dim}
        tiny.save_npz(tmp_path / "model.npz", options, weights)
        # They space the wavelengths of positions in their own way, and divide by a little more.
        made = network(tmp_path / "model.npz", positions="transformers", epsilon=1e-5)
        target = [theirs.config.pad_token_id, *TARGET]  # whose embedding is zeros, as Marian's start
        with torch.no_grad():
            expected = theirs(torch.tensor([SOURCE]), decoder_input_ids=torch.tensor([target])).logits[0]
        torch.testing.assert_close(logits(made, SOURCE, TARGET), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("output", ["decoder_ff_logit_out_Wt", "decoder_ff_logit_out_W"])
    def test_embeddings_of_their_own(self, tiny, reference, tmp_path, output):
        weights = tiny.random_weights(tiny.STUDENT, 50)
        expected = torch.from_numpy(reference.Reference(tiny.STUDENT, weights).logits(SOURCE, TARGET)).float()
        shared = weights.pop("Wemb")
        order = np.random.default_rng(1).permutation(50)
        weights |= {"encoder_Wemb": shared[order], "decoder_Wemb": shared}
        weights[output] = shared if output.endswith("t") else shared.T
        tiny.save_npz(tmp_path / "model.npz", tiny.STUDENT, weights)
        places = np.argsort(order)
        found = logits(network(tmp_path / "model.npz"), [int(places[piece]) for piece in SOURCE], TARGET)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


class TestBin:
    """Version 1 of Marian's binary files."""

    def test_int8_matrices_are_read_as_what_they_stand_for(self, student, tiny):
        folder, weights = student
        found = read_container(folder / "model.enes.intgemm.alphas.bin").weights
        small = tiny.quantised(weights)
        for name, value in weights.items():
            expected = small[name][0] / small[name][1] if name in small else value
            np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=0)
            assert np.abs(found[name] - value).max() <= np.abs(value).max() / 127 / 2 + 1e-6

    def test_floats(self, tiny, tmp_path):
        weights = tiny.random_weights(tiny.STUDENT, 50)
        (tmp_path / "model.bin").write_bytes(tiny.bin_bytes(tiny.STUDENT, weights, int8=False))
        found = read_container(tmp_path / "model.bin")
        assert all(np.array_equal(found.weights[name], value) for name, value in weights.items())
        assert found.options["dec-cell"] == "ssru"

    def test_a_packed_folder_as_firefox_fetches_it(self, student, tmp_path):
        folder, _ = student
        for file in folder.iterdir():
            (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        plain, packed = (MarianTranslator.load(one, CPU) for one in (folder, tmp_path))
        assert (packed.source, packed.target) == ("en", "es")
        assert packed.fingerprint == plain.fingerprint

    def test_the_size_of_a_published_model(self, tiny):
        """That of Firefox's en-et "tiny" is 17,140,754 bytes, of which the options take some hundreds.

        Source: mozilla/firefox-translations-models, models/tiny/enet/metadata.json.
        """
        options = tiny.STUDENT | {"dim-emb": 256, "enc-depth": 6, "transformer-dim-ffn": 1536}
        weights = tiny.random_weights(options, 32000)
        assert sum(value.size for value in weights.values()) + 6 * 6 + 8 * 2 + 2 == 16907062
        assert abs(len(tiny.bin_bytes(options, weights)) - 17140754) < 2048


class TestFiles:
    """Which of the files in a folder are taken."""

    def test_owns(self, student, opus, tiny, tmp_path):
        folder, weights = student
        (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04 something else")
        (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
        assert MarianTranslator.owns(folder)
        assert MarianTranslator.owns(folder / "model.enes.intgemm.alphas.bin")
        assert not MarianTranslator.owns(folder / "lex.50.50.enes.s2t.bin")
        assert MarianTranslator.owns(opus[0])
        assert not MarianTranslator.owns(tmp_path)
        assert not MarianTranslator.owns(tmp_path / "nothing")
        np.savez(tmp_path / "others.npz", a=np.zeros(3))
        assert not MarianTranslator.owns(tmp_path)
        tiny.save_npz(tmp_path / "model.npz", tiny.STUDENT, weights)
        assert MarianTranslator.owns(tmp_path)

    def test_opus_as_marian_keeps_it(self, opus, tiny, tmp_path):
        folder, theirs = opus
        file = tmp_path / "opus.spm32k-spm32k.transformer-align.model1.npz.best-perplexity.npz"
        options = attention_options(tiny) | {"transformer-decoder-dim-ffn": theirs.config.decoder_ffn_dim}
        tiny.save_npz(file, options, tiny.marian_names(theirs))
        names = (folder / "vocab.json").read_text()
        (tmp_path / "opus.spm32k-spm32k.vocab.yml").write_text(names[1:-1].replace(', "', '\n"') + "\n")
        for side in ("source", "target"):
            (tmp_path / f"{side}.spm").write_bytes((folder / f"{side}.spm").read_bytes())
        ours, hub = MarianTranslator.load(tmp_path, CPU, "en", "es"), MarianTranslator.load(folder, CPU)
        for text in tiny.sentences("en", 3):
            assert ours.codec.encode(text) == hub.codec.encode(text)
        assert ours.network.config.positions == "marian"

    def test_a_vocabulary_for_each_side(self, student, tiny, tmp_path):
        folder, _ = student
        (tmp_path / "model.enja.intgemm.alphas.bin").write_bytes(
            (folder / "model.enes.intgemm.alphas.bin").read_bytes()
        )
        for side, language in (("src", "en"), ("trg", "es")):
            (tmp_path / f"{side}vocab.enja.spm").write_bytes(tiny.train_pieces([language]))
        model = MarianTranslator.load(tmp_path, CPU)
        text = tiny.sentences("es")[0]
        assert (model.source, model.target) == ("en", "ja")
        assert model.target_codec.decode(model.target_codec.encode(text)) == text
        assert len(model.codec.encode(text)) > len(model.target_codec.encode(text))
        assert all(model.target_codec.begins_word)  # there are no spaces in Japanese

    def test_several_models(self, student, tmp_path):
        folder, _ = student
        for pair in ("enes", "esen"):
            (tmp_path / f"model.{pair}.bin").write_bytes((folder / "model.enes.intgemm.alphas.bin").read_bytes())
            (tmp_path / f"vocab.{pair}.spm").write_bytes((folder / "vocab.enes.spm").read_bytes())
        with pytest.raises(ValueError, match=r"found several: model\.enes\.bin, model\.esen\.bin; name the model"):
            MarianTranslator.load(tmp_path, CPU)
        model = MarianTranslator.load(tmp_path / "model.esen.bin", CPU)
        assert (model.source, model.target) == ("es", "en")

    def test_no_vocabulary(self, student, tmp_path):
        (tmp_path / "model.enes.bin").write_bytes((student[0] / "model.enes.intgemm.alphas.bin").read_bytes())
        with pytest.raises(ValueError, match=r"expected one vocabulary \(\*\.spm\), found none"):
            MarianTranslator.load(tmp_path, CPU)

    def test_the_vocabulary_of_another_model(self, student, tiny, tmp_path):
        (tmp_path / "model.enes.bin").write_bytes(tiny.bin_bytes(tiny.STUDENT, tiny.random_weights(tiny.STUDENT, 20)))
        (tmp_path / "vocab.spm").write_bytes((student[0] / "vocab.enes.spm").read_bytes())
        with pytest.raises(ValueError, match="pieces, but its network 20"):
            MarianTranslator.load(tmp_path, CPU)


class TestDamage:
    """Nothing that a file says is believed."""

    @pytest.fixture
    def content(self, student):
        return (student[0] / "model.enes.intgemm.alphas.bin").read_bytes()

    def load(self, tmp_path, content, name="model.enes.bin"):
        (tmp_path / name).write_bytes(content)
        return read_native(tmp_path / name)

    def test_every_cut(self, content, tmp_path):
        for size in (0, 5, 16, 20, 100, 3000, len(content) // 2, len(content) - 300):
            with pytest.raises(ValueError, match=r"model\.enes\.bin is no model of Marian, or damaged"):
                self.load(tmp_path, content[:size])

    def test_every_number_of_the_header(self, content, tmp_path):
        """A number that is wrong leads to an error that names the file, or to what the file stores; never to more."""
        for at in range(0, 16 + 32 * 4, 8):
            for value in (0, 2**31, 2**63, 2**64 - 1):
                message = ""
                try:
                    _, weights = self.load(tmp_path, content[:at] + struct.pack("<Q", value) + content[at + 8 :])
                    assert sum(weight.nbytes for weight in weights.values()) < 20 * len(content)
                except ValueError as error:
                    message = str(error)
                assert not message or "model.enes.bin" in message

    @pytest.mark.parametrize(
        ("kind", "message"),
        [(0x1801, "packed for one kind of processor; convert"), (0x9199, "unknown type 0x9199")],
    )
    def test_other_types(self, content, tmp_path, kind, message):
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, content[:24] + struct.pack("<Q", kind) + content[32:])

    def test_an_impossible_multiplier(self, student, tiny, tmp_path):
        _, weights = student
        broken = weights | {"Wemb": np.zeros_like(weights["Wemb"])}
        with (
            np.errstate(divide="ignore", invalid="ignore"),
            pytest.raises(ValueError, match="'Wemb' has the multiplier inf"),
        ):
            self.load(tmp_path, tiny.bin_bytes(tiny.STUDENT, broken))

    def test_numbers_that_are_none(self, student, tiny, tmp_path):
        folder, weights = student
        bias = np.full_like(weights["encoder_l1_ffn_b1"], np.nan)
        content = tiny.bin_bytes(tiny.STUDENT, weights | {"encoder_l1_ffn_b1": bias})
        (tmp_path / "model.enes.bin").write_bytes(content)
        (tmp_path / "vocab.spm").write_bytes((folder / "vocab.enes.spm").read_bytes())
        with pytest.raises(ValueError, match=r"encoder\.0\.feed\.first\.bias has numbers that are not finite"):
            MarianTranslator.load(tmp_path, CPU)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dec-cell": "gru"}, "dec-cell in special:model.yml is 'gru', but only ssru can be run"),
            ({"type": "s2s"}, "type in special:model.yml is 's2s'"),
            ({"transformer-ffn-activation": "gelu"}, "only relu and swish"),
            ({"enc-depth": 10**12}, "enc-depth in special:model.yml is '1000000000000', expected a whole number"),
            ({"enc-depth": 60}, "no weight 'encoder_l3_self_Wq'"),
            ({"dec-depth": 1}, "no place, such as 'decoder_l2"),
            ({"dim-emb": "x"}, "dim-emb in special:model.yml is 'x'"),
            ({"transformer-postprocess": "dhn"}, "operations 'dhn' around a layer"),
            ({"right-left": True}, "right-left"),
        ],
    )
    def test_options(self, student, tiny, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, tiny.bin_bytes(tiny.STUDENT | options, student[1]))

    def test_a_layer_that_is_not_run(self, student, tiny, tmp_path):
        weights = student[1] | {"Wpos": np.zeros((3, 32), np.float32)}
        with pytest.raises(ValueError, match="no place, such as 'Wpos'"):
            self.load(tmp_path, tiny.bin_bytes(tiny.STUDENT, weights))

    def test_no_options(self, student, tmp_path):
        with (tmp_path / "model.npz").open("wb") as stream:
            np.savez(stream, **student[1])
        with pytest.raises(ValueError, match=r"no special:model\.yml"):
            read_native(tmp_path / "model.npz")

    def test_a_matrix_that_claims_to_be_large(self, tiny, tmp_path):
        tiny.save_npz(tmp_path / "model.npz", tiny.STUDENT, {})
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
        header += b" " * (117 - len(header)) + b"\n"
        with zipfile.ZipFile(tmp_path / "model.npz", "a") as archive:
            archive.writestr("Wemb.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        with pytest.raises(ValueError, match=r"a matrix of \[1000000, 1000000\] float32, but"):
            read_native(tmp_path / "model.npz")

    def test_pickles_are_refused(self, tiny, tmp_path):
        tiny.save_npz(tmp_path / "model.npz", tiny.STUDENT, {"Wemb": np.array([{}, print], dtype=object)})
        with pytest.raises(ValueError, match=r"a matrix of object, expected numbers"):
            read_native(tmp_path / "model.npz")

    def test_a_damaged_archive(self, student, tiny, tmp_path):
        tiny.save_npz(tmp_path / "model.npz", tiny.STUDENT, student[1])
        content = (tmp_path / "model.npz").read_bytes()
        for changed in (content[: len(content) // 2], content[:2000] + b"\xff" * 200 + content[2200:]):
            with pytest.raises(ValueError, match=r"model\.npz is no model of Marian, or damaged"):
                self.load(tmp_path, changed, "model.npz")

    def test_a_damaged_package(self, content, tmp_path):
        packed = gzip.compress(content)
        with pytest.raises(ValueError, match=r"model\.bin\.gz is truncated or not packed with gzip"):
            self.load(tmp_path, packed[:-100], "model.bin.gz")
