"""segue.tfrecord: framing, CRCs and SequenceExamples, against known bytes and round trips."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

# By path: the module stands alone and is tested without the built package.
_PATH = Path(__file__).parents[2] / "bindings" / "python" / "segue" / "tfrecord.py"
_SPEC = importlib.util.spec_from_file_location("segue_tfrecord", _PATH)
tfrecord = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tfrecord)


def bitwise_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def toy(length: int) -> dict[str, np.ndarray]:
    return {"token": np.linspace(0, 1, length), "label": np.arange(length) % 2}


def test_crc32c_vectors():
    assert tfrecord.crc32c(b"") == 0
    assert tfrecord.crc32c(b"123456789") == 0xE3069283
    assert tfrecord.crc32c(bytes(32)) == 0x8A9136AA
    assert tfrecord.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert tfrecord.crc32c(bytes(range(32))) == 0x46DD794E


def test_crc32c_of_every_path():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    data = np.random.default_rng(seed).bytes(tfrecord._CHUNK + 600)
    for size in [1, 3, 4, 5, 511, 512, 513, 1023, 1024, 1025, 4097]:
        assert tfrecord.crc32c(data[:size]) == bitwise_crc32c(data[:size]), size
    # Across a chunk's end by 0 to 5 bytes: compared by the slow loop over all of it, once.
    crc = bitwise_crc32c(data[: tfrecord._CHUNK]) ^ 0xFFFFFFFF
    for extra in range(6):
        size = tfrecord._CHUNK + extra
        assert tfrecord.crc32c(data[:size]) == crc ^ 0xFFFFFFFF, extra
        crc ^= data[size]
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)


def test_crc32c_is_fast_enough():
    data = bytes(1 << 22)
    begin = time.perf_counter()
    tfrecord.crc32c(data)
    assert time.perf_counter() - begin < 4, "less than 1 MB/s"


def test_offsets_of_the_seed_document(tmp_path):
    path = tmp_path / "toydata.tfrecords"
    with tfrecord.SequenceExampleWriter(path) as writer:
        offsets = [writer.write(toy(n)) for n in (12, 14, 12)] + [writer.offset]
    assert offsets == [0, 246, 527, 773]
    assert path.stat().st_size == 773
    assert [offset for offset, _ in tfrecord.read_records(path)] == [0, 246, 527]


def test_golden_bytes():
    """A small example written out by hand from the protobuf encoding rules."""
    data = tfrecord.encode_sequence_example(
        {"t": np.array([1.0, -2.0]), "i": [[1, -1]]}, {"k": "ab", "b": True}
    )
    minus_one = b"\xff" * 9 + b"\x01"
    b_feature = b"\x1a\x03\x0a\x01\x01"
    k_feature = b"\x0a\x04\x0a\x02ab"
    context = (
        b"\x0a" + bytes([3 + 2 + len(b_feature)]) + b"\x0a\x01b\x12" + bytes([len(b_feature)])
        + b_feature
        + b"\x0a" + bytes([3 + 2 + len(k_feature)]) + b"\x0a\x01k\x12" + bytes([len(k_feature)])
        + k_feature
    )  # fmt: skip
    i_list = b"\x0a\x0f" b"\x1a\x0d\x0a\x0b\x01" + minus_one
    t_list = (
        b"\x0a\x08\x12\x06\x0a\x04" + struct.pack("<f", 1) + b"\x0a\x08\x12\x06\x0a\x04"
        + struct.pack("<f", -2)
    )  # fmt: skip
    lists = b"\x0a\x16\x0a\x01i\x12\x11" + i_list + b"\x0a\x19\x0a\x01t\x12\x14" + t_list
    assert data == b"\x0a" + bytes([len(context)]) + context + b"\x12" + bytes([len(lists)]) + lists


@pytest.mark.parametrize("compression", [None, "gzip", "zlib"])
def test_round_trip(tmp_path, compression):
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng = np.random.default_rng(seed)
    examples = []
    for n in rng.integers(1, 400, 20):
        sequences = {
            "x": rng.normal(size=(n, 3)).astype(np.float32),
            "double": rng.normal(size=n),
            "label": rng.integers(-(2**63), 2**63 - 1, n),
            "byte": rng.integers(0, 256, (n, 2, 2)).astype(np.uint8),
            "flag": rng.integers(0, 2, n).astype(bool),
            "word": [b"\x00a\x00", "grün"] * int(n),
        }
        context = {"speaker": int(n), "name": "x" * int(n), "mean": rng.normal(size=2)}
        examples.append((sequences, context))
    path = tmp_path / "data"
    with tfrecord.SequenceExampleWriter(path, compression) as writer:
        offsets = [writer.write(*example) for example in examples]
    records = list(tfrecord.read_records(path))
    assert [record.offset for record in records] == offsets
    for record, (sequences, context) in zip(records, examples, strict=True):
        got_context, got = tfrecord.decode_sequence_example(record.data)
        assert sorted(got) == sorted(sequences) and sorted(got_context) == sorted(context)
        for name in ("x", "double", "label", "byte", "flag"):
            expected = np.asarray(sequences[name])
            dtype = np.float32 if expected.dtype.kind == "f" else np.int64
            flat = np.stack(got[name])
            assert flat.dtype == dtype
            np.testing.assert_array_equal(flat.reshape(expected.shape), expected.astype(dtype))
        assert got["word"] == [[b"\x00a\x00"], ["grün".encode()]] * (len(got["word"]) // 2)
        assert got_context["speaker"].tolist() == [context["speaker"]]
        assert got_context["name"] == [context["name"].encode()]
        np.testing.assert_array_equal(got_context["mean"], context["mean"].astype(np.float32))


def test_equal_records_make_equal_gzip_files(tmp_path):
    for name in ("one", "other"):
        with tfrecord.SequenceExampleWriter(tmp_path / name, "gzip") as writer:
            writer.write(toy(12))
    one, other = (tmp_path / "one").read_bytes(), (tmp_path / "other").read_bytes()
    assert one == other and gzip.decompress(one)[:8] == struct.pack("<Q", 230)


def test_zlib_files_are_told_from_plain_ones(tmp_path):
    path = tmp_path / "data"
    for size in (0x0178, 0x9C78):  # the length is what zlib's format begins with
        for compression in (None, "zlib"):
            with tfrecord.SequenceExampleWriter(path, compression) as writer:
                writer.write_record(bytes(size))
            (record,) = tfrecord.read_records(path)
            assert record.data == bytes(size)
    packed = zlib.compress(path.read_bytes())
    with tfrecord.SequenceExampleWriter(path) as writer:
        writer.write_record(b"one")
    path.write_bytes(2 * zlib.compress(path.read_bytes()))  # one after the other
    assert [record.data for record in tfrecord.read_records(path)] == [b"one", b"one"]
    path.write_bytes(packed[:-1])
    with pytest.raises(zlib.error, match="cut off"):
        list(tfrecord.read_records(path))


def test_decodes_unpacked_lists_and_unknown_fields():
    unpacked_ints = b"\x1a\x04" b"\x08\x05\x08\x07"
    unpacked_floats = b"\x12\x05" b"\x0d" + struct.pack("<f", 0.5)
    unknown = b"\x50\x01" b"\x5a\x01z"  # fields 10 (varint) and 11 (bytes)

    def step(feature: bytes) -> bytes:
        return b"\x0a" + bytes([len(feature)]) + feature

    steps = step(unpacked_ints) + unknown + step(unpacked_floats) + step(b"")
    entry = b"\x12" + bytes([len(steps)]) + steps + b"\x0a\x01q"  # value before key
    lists = b"\x0a" + bytes([len(entry)]) + entry
    context, sequences = tfrecord.decode_sequence_example(
        unknown + b"\x12" + bytes([len(lists)]) + lists
    )
    assert context == {}
    ints, floats, nothing = sequences["q"]
    assert ints.tolist() == [5, 7] and floats.tolist() == [0.5] and nothing is None


def test_steps_of_different_sizes():
    data = tfrecord.encode_sequence_example({"x": [[1], [2.5, 3], []], "w": [["a"], ["b", "c"]]})
    _, sequences = tfrecord.decode_sequence_example(data)
    assert [step.tolist() for step in sequences["x"]] == [[1.0], [2.5, 3.0], []]
    assert all(step.dtype == np.float32 for step in sequences["x"])
    assert sequences["w"] == [[b"a"], [b"b", b"c"]]


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "data"
    with tfrecord.SequenceExampleWriter(path) as writer:
        writer.write({"x": [1.5]})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(tfrecord.TFRecordError, match="at offset 0: .*(CRC|cut)"):
            list(tfrecord.read_records(path))


def test_every_cut_is_found(tmp_path):
    path = tmp_path / "data"
    with tfrecord.SequenceExampleWriter(path) as writer:
        writer.write({"x": [1.5]})
        second = writer.write({"x": [2.5]})
    whole = path.read_bytes()
    for size in range(second + 1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(tfrecord.TFRecordError, match=f"at offset {second}: cut"):
            list(tfrecord.read_records(path))


def test_errors(tmp_path):
    with pytest.raises(TypeError, match="feature 'x': dtype complex128"):
        tfrecord.encode_sequence_example({"x": np.zeros(3, complex)})
    with pytest.raises(TypeError, match="feature 'x': NoneType"):
        tfrecord.encode_sequence_example({}, {"x": [None]})
    with pytest.raises(ValueError, match="feature 'x'.*steps"):
        tfrecord.encode_sequence_example({"x": 1.0})
    with pytest.raises(ValueError, match="feature 'x'.*steps"):
        tfrecord.encode_sequence_example({"x": np.array(1.0)})
    with pytest.raises(ValueError, match="9223372036854775808 does not fit int64"):
        tfrecord.encode_sequence_example({"x": np.array([2**63], np.uint64)})
    with pytest.raises(ValueError, match="'zip'.*gzip.*zlib"):
        tfrecord.SequenceExampleWriter(tmp_path / "x", "zip")
    with pytest.raises(tfrecord.TFRecordError, match="reaches beyond"):
        tfrecord.decode_sequence_example(b"\x0a\x05")
    with tfrecord.SequenceExampleWriter(tmp_path / "kept") as writer:
        with pytest.raises(TypeError):
            writer.write({"x": np.zeros(3, complex)})
        assert writer.offset == 0


def message_class(wanted="SequenceExample"):
    """A message of the official implementation, whose package must be installed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    Field = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields, entry=False):
        proto = file.message_type.add(name=name)
        proto.options.map_entry = entry
        for number, (label, kind, title, type_name) in enumerate(fields, 1):
            proto.field.add(name=title, number=number, label=label, type=kind, type_name=type_name)
        return proto

    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
    sub, text = Field.TYPE_MESSAGE, Field.TYPE_STRING
    message("BytesList", (many, Field.TYPE_BYTES, "value", None))
    message("FloatList", (many, Field.TYPE_FLOAT, "value", None))
    message("Int64List", (many, Field.TYPE_INT64, "value", None))
    feature = message(
        "Feature",
        (one, sub, "bytes_list", ".t.BytesList"),
        (one, sub, "float_list", ".t.FloatList"),
        (one, sub, "int64_list", ".t.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for kind in feature.field:
        kind.oneof_index = 0
    message("Features", (many, sub, "feature", ".t.Features.FeatureEntry"))
    message("FeatureList", (many, sub, "feature", ".t.Feature"))
    message("FeatureLists", (many, sub, "feature_list", ".t.FeatureLists.FeatureListEntry"))
    for outer, name, value in (
        ("Features", "FeatureEntry", ".t.Feature"),
        ("FeatureLists", "FeatureListEntry", ".t.FeatureList"),
    ):
        entry = message(name, (one, text, "key", None), (one, sub, "value", value), entry=True)
        next(m for m in file.message_type if m.name == outer).nested_type.add().CopyFrom(entry)
        file.message_type.remove(entry)
    message(
        "SequenceExample",
        (one, sub, "context", ".t.Features"),
        (one, sub, "feature_lists", ".t.FeatureLists"),
    )
    message("Example", (one, sub, "features", ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{wanted}"))


def test_against_protobuf():
    """The same bytes as the official implementation, where its package is installed."""
    pytest.importorskip("google.protobuf")
    Example = message_class()
    example = Example()
    example.context.feature["name"].bytes_list.value.append(b"abc")
    example.context.feature["id"].int64_list.value.append(-3)
    for token, label in zip([0.25, 0.5], [0, 300]):
        lists = example.feature_lists.feature_list
        lists["token"].feature.add().float_list.value.append(token)
        lists["label"].feature.add().int64_list.value.append(label)
    ours = tfrecord.encode_sequence_example(
        {"token": [0.25, 0.5], "label": [0, 300]}, {"name": b"abc", "id": -3}
    )
    assert ours == example.SerializeToString(deterministic=True)
    assert Example.FromString(ours) == example
