"""course/state_files.py: what torch.save wrote, bit for bit, and nothing that runs."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors.numpy import save

from course.state_files import read_state


@pytest.fixture(scope="module")
def torch():
    """Return PyTorch, or skip."""
    return pytest.importorskip("torch", reason="PyTorch is not installed")


class Global(tuple):
    """A name in a pickle of our own making: (module, name)."""


class Stored(tuple):
    """A persistent id in it."""


def pickled(value):
    """Return the pickle, protocol 2, of dicts, tuples, strings, whole numbers and names.

    It is written here instruction by instruction, as hostile files are.
    """
    if isinstance(value, bytes):  # instructions
        return value
    if isinstance(value, Global):
        return b"c" + "\n".join(value).encode() + b"\n"
    if isinstance(value, Stored):
        return pickled(tuple(value)) + b"Q"
    if isinstance(value, dict):
        pairs = (pickled(part) for pair in value.items() for part in pair)
        return b"}(" + b"".join(pairs) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    number = pickle.encode_long(value)
    return b"\x8a" + bytes([len(number)]) + number


def called(function, *arguments):
    """Return the instructions that call a function, whose name is "module.name"."""
    return pickled(Global(function.rsplit(".", 1))) + pickled(arguments) + b"R"


STORAGE = Stored(("storage", Global(("torch", "FloatStorage")), "0", "cpu", 6))


def tensor(sizes=(2, 3), strides=(3, 1), offset=0, storage=STORAGE):
    """Return the instructions that make a tensor."""
    hooks = called("collections.OrderedDict")
    rebuild = "torch._utils._rebuild_tensor_v2"
    return called(rebuild, storage, offset, sizes, strides, False, hooks)


NUMBERS = np.arange(6, dtype=np.float32)


def archive(path, value, entries=None, **keywords):
    """Write a file as torch.save does, with this value or these instructions in it."""
    entries = {"x/data/0": NUMBERS.tobytes()} if entries is None else entries
    with zipfile.ZipFile(path, "w", **keywords) as file:
        file.writestr("x/data.pkl", b"\x80\x02" + pickled(value) + b".")
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def same(found, expected):
    """Raise unless both have the same keys, types, shapes and bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


# --- what PyTorch and safetensors write --------------------------------------------------


def tensors(torch):
    """Return tensors of every kind, and as which arrays they must come back."""
    some = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    half, brain = some.half(), some.bfloat16()
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 65504.0])
    state = OrderedDict(
        float=some,
        double=some.double() / 3,
        transposed=some.permute(2, 0, 1),
        rows=some[1::2],
        column=some[:, 3],
        one=some[2, 3, 4],
        expanded=some[0, 0].expand(3, 5),
        empty=some[:0],
        flat=torch.zeros(0),
        half=half,
        half_column=half[:, 3],
        bfloat=brain,
        bfloat_transposed=brain.permute(2, 0, 1),
        count=torch.tensor(7),
        ints=torch.arange(-3, 3, dtype=torch.int32),
        shorts=torch.arange(-3, 3, dtype=torch.int16),
        bytes=torch.arange(250, 256, dtype=torch.uint8),
        chars=torch.arange(-3, 3, dtype=torch.int8),
        bools=some[0] > 0,
        odd=odd,
        odd_half=odd[1:].half(),  # which NaN it becomes is anybody's choice
        odd_bfloat=odd[1:].bfloat16(),
        parameter=torch.nn.Parameter(some[0].clone()),
    )
    wide = (torch.half, torch.bfloat16)
    arrays = {
        name: (t.float() if t.dtype in wide else t).detach().numpy()
        for name, t in state.items()
    }
    return state, arrays


def test_every_kind_of_tensor_keeps_its_bits(torch, tmp_path):
    state, arrays = tensors(torch)
    torch.save(state, tmp_path / "w.pth")
    same(read_state(tmp_path / "w.pth"), arrays)


def test_safetensors_keep_their_bits(torch, tmp_path):
    from safetensors.torch import save_file

    state, arrays = tensors(torch)
    whole = {name: t.detach().contiguous().clone() for name, t in state.items()}
    save_file(whole, tmp_path / "w.safetensors")
    found = read_state(tmp_path / "w.safetensors")
    same({name: found[name] for name in arrays}, arrays)


def test_safetensors_without_pytorch(tmp_path):
    arrays = {"w": np.arange(6.0).reshape(2, 3), "half": np.array([1.5, -2], np.float16)}
    (tmp_path / "w.safetensors").write_bytes(save(arrays))
    found = read_state(tmp_path / "w.safetensors")
    same({name: found[name] for name in arrays}, arrays | {"half": np.float32([1.5, -2])})


def test_our_own_pickle_is_understood(tmp_path):
    """What the hostile files below change is right before it is changed."""
    found = read_state(archive(tmp_path / "w.pth", {"w": tensor((3, 2), (1, 3))}))
    same(found, {"w": NUMBERS.reshape(2, 3).T})


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    """1.0 is 3f80, -2.5 is c020: by hand."""
    storage = Stored(("storage", Global(("torch", "BFloat16Storage")), "0", "cuda:0", 2))
    value = {"w": tensor((2,), (1,), storage=storage)}
    path = archive(tmp_path / "w.pt", value, {"x/data/0": b"\x80\x3f\x20\xc0"})
    same(read_state(path), {"w": np.float32([1.0, -2.5])})


def test_big_end_first(tmp_path):
    entries = {"x/data/0": NUMBERS.astype(">f4").tobytes(), "x/byteorder": b"big"}
    path = archive(tmp_path / "w.pt", {"w": tensor()}, entries)
    same(read_state(path), {"w": NUMBERS.reshape(2, 3)})


def test_a_network_with_statistics(torch, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    net(torch.randn(2, 3, 8, 8))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    expected = {name: t.numpy() for name, t in net.state_dict().items()}
    assert expected["1.num_batches_tracked"].shape == ()
    same(read_state(tmp_path / "w.pth"), expected)


@pytest.mark.parametrize("key", ["state_dict", "net"])
def test_checkpoint_of_several_gpus(torch, key, tmp_path):
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    adam.step()
    inner = {f"module.{name}": t for name, t in net.state_dict().items()}
    told = {"epoch": 164, "best_prec1": 91.73, "arch": "resnet20", "done": True}
    torch.save({**told, key: inner, "optimizer": adam.state_dict()}, tmp_path / "w.th")
    expected = {name: t.numpy() for name, t in net.state_dict().items()}
    same(read_state(tmp_path / "w.th"), expected)


def test_views_of_one_storage_share_its_memory(torch, tmp_path):
    whole = torch.randn(6, 4)
    torch.save({"a": whole[:3], "b": whole[2:]}, tmp_path / "w.pth")
    found = read_state(tmp_path / "w.pth")
    same(found, {"a": whole[:3].numpy(), "b": whole[2:].numpy()})
    assert np.shares_memory(found["a"], found["b"])
    with pytest.raises(ValueError, match=r"read-only"):
        found["a"][0, 0] = 1


# --- what is refused ---------------------------------------------------------------------


class Attack:
    """An object whose pickle calls a function: the classic."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harm(path):
    """Return name -> value to pickle; whoever runs one creates the file at the path."""
    write = f"open({str(path)!r}, 'w')"
    touch = f"touch '{path}'"
    rebuild, code = "torch._utils._rebuild_tensor_v2", f"{write}.close()"
    return {
        "os.system": called("os.system", touch),
        "posix.system": called("posix.system", touch),
        "subprocess": called("subprocess.check_output", ("touch", str(path))),
        "eval": called("builtins.eval", write),
        "exec": called("builtins.exec", code),
        "open": called("builtins.open", str(path), "w"),
        "getattr": called("builtins.getattr", Global(("os", "x")), "system"),
        "dotted": called("torch.os.system", touch),
        "numpy": called("numpy.core.multiarray._reconstruct", 1, (0,), "b"),
        "runstring": called("numpy.testing._private.utils.runstring", code, {}),
        "torch.load": called("torch.load", str(path)),
        "torch.hub": called("torch.hub.load", "a/b", "c"),
        "nested": {"w": called("builtins.eval", write)},
        "as a size": {"w": tensor((called("builtins.eval", write), 3))},
        "as hooks": {
            "w": called(rebuild, STORAGE, 0, (6,), (1,), False, Global(("a", "b")))
        },
        "name": Global(("os", "system")),
        "function of ours": called("course.files.write_whole", str(path), "x"),
        "module": called("importlib.import_module", "antigravity"),
        "partial": called("functools.partial", Global(("os", "system")), touch),
        "ordered dict": called("collections.OrderedDict", [("w", 1)]),
        "map": called("builtins.map", Global(("os", "system")), [touch]),
    }


@pytest.mark.parametrize("name", harm("x"))
def test_a_hostile_pickle_runs_nothing(name, tmp_path):
    target = tmp_path / "harmed"
    path = archive(tmp_path / "w.pth", harm(target)[name])
    with pytest.raises(ValueError, match=r"w.pth (is not a|holds a)") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_such_a_pickle_would_run(tmp_path):
    """The same bytes, unpickled by Python, do the harm: the attack is a real one."""
    target = tmp_path / "harmed"
    program = b"\x80\x02" + harm(target)["open"] + b"."
    pickle.loads(program).close()
    assert target.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_attacks_that_python_pickles(protocol, tmp_path):
    target = tmp_path / "harmed"
    for value in (
        Attack(os.system, f"touch '{target}'"),
        {"w": Attack(eval, f"open({str(target)!r}, 'w')")},
        Attack(getattr, "x", "upper"),
        np.ones(3),
        np.float64(3.0),
        {1, 2},
        object,
    ):
        path = tmp_path / f"{protocol}.pth"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/data.pkl", pickle.dumps(value, protocol))
        with pytest.raises(ValueError, match=r"is not a state dict"):
            read_state(path)
    assert not target.exists()


INSTRUCTIONS = {  # each would do something with an object of the file's choice
    "inst": b"(X\x01\x00\x00\x00aios\nsystem\n",
    "obj": b"(cos\nsystem\nX\x01\x00\x00\x00ao",
    "newobj": b"cbuiltins\nobject\n)\x81",
    "newobj_ex": b"cbuiltins\nobject\n)}\x92",
    "stack_global": b"\x8c\x02os\x8c\x06system\x93",
    "extension": b"\x82\x01",
    "persid": b"Px\n",
    "build a name": b"cos\nsystem\n}b",
    "build a tensor": tensor() + pickled({"__class__": 1}) + b"b",
    "set items of a name": b"cos\nenviron\n" + pickled("A") + pickled("b") + b"s",
    "append to a name": b"csys\npath\n" + pickled("/tmp") + b"a",
    "append to a tuple": b")" + pickled("x") + b"a",
    "call a tensor": tensor() + b")R",
    "call a dict": b"})R",
    "a tensor as a key": b"}" + tensor() + pickled(1) + b"s",
    "a tuple as a key": b"}))s",
    "int in words": b"I1\n",
    "string in words": b"S'x'\n",
    "long": b"\x8b\xff\xff\xff\x7f",
    "bytes": b"B\xff\xff\xff\xffx",
    "a long string": b"X\xff\xff\xff\xffx",
    "underflow": b"R",
    "no mark": b"t",
    "nothing remembered": b"h\x07",
    "unknown": b"\xff",
    "empty": b"",
    "the end is missing": b"}" * 9 + b"X",
    "bad letters": b"X\x01\x00\x00\x00\xff",
}


@pytest.mark.parametrize("program", INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_other_instructions_are_refused(program, tmp_path):
    with pytest.raises(ValueError, match=r"w.pth is not a state dict: ") as caught:
        read_state(archive(tmp_path / "w.pth", program))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def billion(kind, levels=60):
    """Return instructions for 2^levels values, each level holding the last one twice."""
    start, end = {"tuple": (b"(", b"t"), "list": (b"](", b"e")}[kind]
    program = start + end
    for level in range(levels):
        last = b"h" + bytes([level])
        program += b"q" + bytes([level]) + start + last + last + end
    return program


BOMBS = {
    "a billion tuples": billion("tuple"),
    "a billion tuples as a name": b"}" + billion("tuple") + b"}s",
    "a billion lists": billion("list"),
    "memo": b"}r\xff\xff\xff\x7f",
    "many memos": b"}" + b"".join(b"r" + struct.pack("<I", k << 20) for k in range(4000)),
    "deep": b"(" * 50_000 + b"t" * 50_000,
    "deep lists": b"]" * 50_000 + b"a" * 49_999,
}
SIZES = {
    "more than there is": ((2, 4), (4, 1), 0),
    "offset outside": ((1,), (1,), 6),
    "far offset": ((1,), (1,), 2**62),
    "negative offset": ((1,), (1,), -1),
    "negative stride": ((2,), (-1,), 5),
    "negative size": ((-2,), (1,), 0),
    "product overflows": ((2**33, 2**33), (0, 0), 0),
    "stride overflows": ((2,), (2**62,), 0),
    "longer than an integer": ((2**80,), (1,), 0),
    "empty, but huge": ((0, 2**80), (1, 1), 0),
    "strides missing": ((2, 3), (3,), 0),
    "words": (("2",), (1,), 0),
    "floats": ((None,), (1,), 0),
    "100 axes": ((1,) * 100, (1,) * 100, 0),
    "sizes of a billion": ((billion("tuple"),), (1,), 0),
    "number of 10 000 digits": ((1 << 2000,), (1 << 2000,), 1 << 2000),
}


@pytest.mark.parametrize("sizes, strides, offset", SIZES.values(), ids=SIZES)
def test_tensors_that_reach_beyond_their_storage(sizes, strides, offset, tmp_path):
    value = {"w": tensor(sizes, strides, offset)}
    with pytest.raises(ValueError, match=r"w.pth is not a state dict: ") as caught:
        read_state(archive(tmp_path / "w.pth", value))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


def test_a_repeated_number_takes_no_memory(tmp_path):
    """A stride of 0 makes a large tensor of a small file; it is a view, never copied."""
    found = read_state(archive(tmp_path / "w.pth", {"w": tensor((10**6, 10**6), (0, 0))}))
    assert found["w"].shape == (10**6, 10**6) and found["w"].base is not None


@pytest.mark.parametrize(
    "storage",
    [
        ("storage", Global(("torch", "FloatStorage")), "1", "cpu", 6),
        ("storage", Global(("torch", "FloatStorage")), "../../../../etc/passwd", "cpu", 6),
        ("storage", Global(("torch", "FloatStorage")), "0", "cpu", 7),
        ("storage", Global(("torch", "FloatStorage")), "0", "cpu", 2**70),
        ("storage", Global(("torch", "FloatStorage")), "0", "cpu", -1),
        ("storage", Global(("torch", "DoubleStorage")), "0", "cpu", 6),
        ("storage", Global(("torch", "QInt8Storage")), "0", "cpu", 6),
        ("storage", Global(("torch", "ComplexFloatStorage")), "0", "cpu", 3),
        ("storage", Global(("os", "FloatStorage")), "0", "cpu", 6),
        ("storage", "FloatStorage", "0", "cpu", 6),
        ("file", Global(("torch", "FloatStorage")), "0", "cpu", 6),
        (),
    ],
)
def test_storages_that_are_not_there(storage, tmp_path):
    value = {"w": tensor(storage=Stored(storage))}
    with pytest.raises(ValueError, match=r"w.pth is not a state dict: .*[sS]torage"):
        read_state(archive(tmp_path / "w.pth", value))


@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS)
def test_bombs_are_harmless(program, tmp_path):
    """Each takes Python's own unpickler, or whoever walks its value, very long or much."""
    with pytest.raises(ValueError, match=r"w.pth (is not a state dict|holds a)"):
        read_state(archive(tmp_path / "w.pth", program))


def test_zip_bombs_are_refused(tmp_path):
    packed = {"x/data/0": bytes(10**7)}
    path = archive(tmp_path / "w.pth", {"w": tensor()}, packed, compression=8)
    with pytest.raises(ValueError, match=r"bytes unpack to 100"):
        read_state(path)


def test_a_long_pickle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"longer than 4194304 bytes"):
        read_state(archive(tmp_path / "w.pth", b"N" * 5_000_000))


def test_entries_that_overlap_are_refused(tmp_path):
    """Many entries of the zip file's table may point at the same bytes."""
    path = archive(tmp_path / "w.pth", {"w": tensor()}, {"x/data/0": bytes(100_000)})
    with zipfile.ZipFile(path, "a") as file:
        entry = file.getinfo("x/data/0")
        for k in range(1, 50):
            twin = zipfile.ZipInfo(f"x/data/{k}")
            for name in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, name, getattr(entry, name))
            file.filelist.append(twin)
        file._didModify = True
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"bytes unpack to"):
        read_state(path)


def test_a_zip_file_of_tricks(tmp_path):
    for names in (["../data.pkl/x"], ["data.pkl"], ["a/data.pkl", "b/data.pkl"], []):
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
            for name in names:
                file.writestr(name, b"\x80\x02}.")
        with pytest.raises(ValueError, match=r"not one that torch.save wrote"):
            read_state(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    path = archive(tmp_path / "w.pth", {"w": tensor()})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match=r"not one that torch.save wrote"):
        read_state(path)


def test_old_formats_are_refused(torch, tmp_path):
    state = {"w": torch.ones(3)}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"not a file of PyTorch 1.6 .*newer one do"):
        read_state(tmp_path / "w.pth")
    (tmp_path / "w.tar").write_bytes(b"./w\x00".ljust(257, b"\x00") + b"ustar".ljust(767))
    with pytest.raises(ValueError, match=r"not a file of PyTorch 1.6 or later"):
        read_state(tmp_path / "w.tar")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whole_models_and_scripts_are_refused(torch, tmp_path):
    net = torch.nn.Linear(3, 2)
    torch.save(net, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"instruction NEWOBJ|save model.state_dict"):
        read_state(tmp_path / "w.pth")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, torch.ones(1, 3)), buffer)
    (tmp_path / "s.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"s.pt"):
        read_state(tmp_path / "s.pt")


@pytest.mark.parametrize(
    "value, words",
    [
        ([tensor()], "holds a list"),
        (tensor(), "holds a ndarray"),
        ({"epoch": 3}, "holds a dict, but not one state dict"),
        ({"a": {"w": tensor()}, "b": {"w": tensor()}}, "not one state dict"),
        ({"w": tensor(), "epoch": 3}, "entry 'epoch' .* is a int"),
        ({3: tensor()}, "entry 3 .* is a ndarray"),
    ],
)
def test_what_is_no_state_dict(value, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read_state(archive(tmp_path / "w.pth", value))


def test_safetensors_of_unknown_kind(tmp_path):
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    content = struct.pack("<Q", len(header)) + header + b"\0\0"
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"w in .* has dtype F8_E4M3, none of F64, F32"):
        read_state(tmp_path / "w.safetensors")


def test_a_file_that_is_not_there(tmp_path):
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(FileNotFoundError):
            read_state(tmp_path / name)


def test_any_damage_is_one_clear_error(tmp_path):
    """Every byte of a file, changed or cut off: an error in words, or the same state."""
    path = archive(tmp_path / "w.pth", {"w": tensor(), "b": tensor((3,), (2,))})
    whole, expected = path.read_bytes(), read_state(path)
    rng, kinds = np.random.default_rng(0), set()
    for place in range(len(whole)):
        other = bytes([whole[place] ^ rng.integers(1, 256)])
        cut = whole[:place]
        for damaged in (cut, cut + other + whole[place + 1 :]):
            path.write_bytes(damaged)
            try:
                same(read_state(path), expected)
            except ValueError as error:
                assert "w.pth" in str(error) and "\n" not in str(error)
                kinds.add(str(error).split(": ")[0])
            except AssertionError:
                assert len(damaged) == len(whole), "cut off, and another state"
    assert len(kinds) > 2
