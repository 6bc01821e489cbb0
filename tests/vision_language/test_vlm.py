"""A vision-language model of random weights: answers, training, saving."""

import json
import subprocess
import sys

import pytest
import torch
from coloured_squares import COLOURS, square
from PIL import Image

from seewide.errors import InputError

transformers = pytest.importorskip("transformers")

from seewide.vision_language.vlm import answer as answers  # noqa: E402
from seewide.vision_language.vlm import build, conversations, lmms  # noqa: E402
from seewide.vision_language.vlm.recipes import RECIPES, VlmRecipe  # noqa: E402
from seewide.vision_language.vlm.small import small_language_model  # noqa: E402
from seewide.vision_language.vlm.train import prepare, train  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
QUESTION = "<image>\nwhich colour is the square ?"
TEXTS = [QUESTION, "USER: ASSISTANT:", *(f"it is {colour} ." for colour in COLOURS)]


def make_vlm(image_size=64, template="vicuna"):
    language, tokenizer = small_language_model(TEXTS, width=64, layers=2)
    return build.build_vlm("unireplknet_a", language, tokenizer, image_size, template=template)


@pytest.fixture(scope="module")
def vlm():
    return make_vlm()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A JSON file of twelve questions on coloured squares."""
    folder = tmp_path_factory.mktemp("llava")
    entries = []
    for number in range(12):
        colour = list(COLOURS)[number % 3]
        square(folder / f"{number}.png", colour, number)
        turns = [("human", QUESTION), ("gpt", f"it is {colour} .")]
        entries.append(
            {
                "id": str(number),
                "image": f"{number}.png",
                "conversations": [{"from": who, "value": text} for who, text in turns],
            }
        )
    path = folder / "llava.json"
    path.write_text(json.dumps(entries))
    return path


def test_tower_keeps_its_weights_and_features(vlm):
    """The tower's own features come out, and are what timm computes."""
    x = torch.randn(1, 3, 64, 64)
    vlm.model.eval()
    with torch.no_grad():
        features = vlm.model.model.vision_tower(x).last_hidden_state
        assert torch.equal(features, vlm.tower.forward_features(x))
    assert vlm.image_tokens == 4


def test_only_answers_are_learned(vlm, data):
    (first, *_), skipped = conversations.read_conversations(data)
    assert not skipped
    sample = conversations.encode(vlm, first.messages)
    tokenizer = vlm.processor.tokenizer
    learned = sample["labels"][sample["labels"] != -100]
    assert tokenizer.convert_ids_to_tokens(learned.tolist()) == ["it", "is", "red", ".", "</s>"]
    images = (sample["input_ids"] == vlm.model.config.image_token_id).sum()
    assert images == vlm.image_tokens


def test_training_saving_and_loading(data, tmp_path):
    """The loss falls, the frozen tower stays to the bit, and a new process answers the same."""
    vlm = make_vlm()
    found, _ = conversations.read_conversations(data)
    before = {name: value.clone() for name, value in vlm.tower.state_dict().items()}
    recipe = VlmRecipe(
        train="projector+language", epochs=2, batch_size=6, device_batch=3, lr=3e-3, length=64,
        bf16=False, grad_checkpointing=False,
    )  # fmt: skip
    start = answers.grounding(vlm, found).right
    out = tmp_path / "vlm"
    train(vlm, conversations.ConversationData(found, vlm), recipe, out, use_cpu=True)
    assert all(torch.equal(before[name], value) for name, value in vlm.tower.state_dict().items())
    assert answers.grounding(vlm, found).right < start
    image = Image.new("RGB", (50, 30), (200, 0, 0))
    vlm.model.eval()
    want = answers.ask(vlm, QUESTION, image, most=6)
    code = (
        "import sys, seewide; from PIL import Image\n"
        "from transformers import AutoModelForImageTextToText as M, AutoProcessor as P\n"
        "from seewide.vision_language.vlm import answer, build\n"
        "vlm = build.Vlm(M.from_pretrained(sys.argv[1]).eval(), P.from_pretrained(sys.argv[1]))\n"
        "image = Image.new('RGB', (50, 30), (200, 0, 0))\n"
        "print('answer:', answer.ask(vlm, sys.argv[2], image, most=6))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), QUESTION], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"answer: {want}".strip()
    with pytest.raises(InputError, match="has a model already"):
        train(vlm, conversations.ConversationData(found, vlm), recipe, out, use_cpu=True)


def test_parts_that_recipes_train(vlm):
    def trained(recipe):
        prepare(vlm, recipe)
        names = [name for name, p in vlm.model.named_parameters() if p.requires_grad]
        parts = ("vision_tower", "multi_modal_projector", "language_model")
        return [part for part in parts if any(part in name for name in names)]

    assert trained(RECIPES["llava15_projector"]) == ["multi_modal_projector"]
    assert trained(RECIPES["llava15_instruct"]) == ["multi_modal_projector", "language_model"]
    assert len(trained(VlmRecipe(train="all"))) == 3


def test_lora():
    pytest.importorskip("peft")
    vlm = make_vlm()
    model = prepare(vlm, VlmRecipe(train="projector+language", lora_rank=4))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("lora_A" in name for name in names)
    assert any("multi_modal_projector" in name for name in names)
    assert not any("vision_tower" in name for name in names)
    assert not any("embed_tokens" in name for name in names)


def test_an_image_changes_the_likelihood(vlm, data):
    found, _ = conversations.read_conversations(data)
    report = answers.grounding(vlm, found[:10])  # so that the other image has another colour
    assert report.conversations == 10
    assert report.right != report.wrong
    with pytest.raises(InputError, match="needs two conversations with images, got 1"):
        answers.grounding(vlm, found[:1])


def test_lmms_eval_model(vlm, tmp_path):
    vlm.save(tmp_path)
    model = lmms.make_model(object)(str(tmp_path))
    image = Image.new("RGB", (40, 40), (0, 200, 0))
    model.task_dict = {"task": {"test": [{"image": image}]}}
    settings = {"max_new_tokens": 3, "until": ["\n\n"]}

    class Request:
        args = (QUESTION, settings, lambda doc: [doc["image"]], 0, "task", "test")

    (found,) = model.generate_until([Request()])
    assert found == answers.ask(vlm, QUESTION, image, most=3)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"image": "0.png", "conversations": [{"from": "human", "value": "no mark"}]},
         "has 0 <image> marks and 1 images"),
        ({"conversations": [{"from": "human", "value": QUESTION}]}, "1 <image> marks and 0 images"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "is not in LLaVA's format: 'bot'"),
        ({"image": "gone.png", "conversations": [{"from": "human", "value": QUESTION}]},
         r"no conversation that can be read: 1 image that cannot be read \(gone.png\)"),
    ],
)  # fmt: skip
def test_wrong_conversations(tmp_path, entry, sentence):
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=sentence):
        conversations.read_conversations(tmp_path / "a.json")


def test_wrong_models(vlm, tmp_path):
    language, tokenizer = small_language_model(TEXTS, width=64, layers=1)
    with pytest.raises(InputError, match="has no chat template; name one of vicuna"):
        build.build_vlm("unireplknet_a", language, tokenizer, 64)
    with pytest.raises(InputError, match="must be a multiple of 32, got 336"):
        build.build_vlm("unireplknet_a", language, tokenizer, 336, template="vicuna")
    with pytest.raises(InputError, match="unknown image tower"):
        build.make_config("unirepknet_a", language.config, 64, 4)
    with pytest.raises(InputError, match="0 <image> marks and 1 images"):
        answers.answer(vlm, [{"role": "user", "content": "x"}], Image.new("RGB", (4, 4)))
    with pytest.raises(InputError, match="is no vision-language model"):
        build.load_vlm(tmp_path)
    with pytest.raises(InputError, match="lora_rank needs train"):
        VlmRecipe(lora_rank=8)


def test_paper_size_on_meta():
    """UniRepLKNet-L with a 7 B language model: 217 M + 20 M + 6,738 M parameters."""
    text = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32,
    )  # fmt: skip
    config = build.make_config("unireplknet_l", text, 768, 31999)
    assert config.image_seq_length == 576
    with torch.device("meta"):
        model = transformers.FastVlmForConditionalGeneration(config)
    inner = model.model
    count = {
        name: sum(p.numel() for p in part.parameters()) / 1e6
        for name, part in (
            ("tower", inner.vision_tower),
            ("projector", inner.multi_modal_projector),
            ("language", inner.language_model),
        )
    }
    assert count["tower"] == pytest.approx(218.5, abs=0.1)
    assert count["projector"] == pytest.approx((1536 + 1) * 4096e-6 + (4096 + 1) * 4096e-6)
    assert count["language"] + 32000 * 4096e-6 == pytest.approx(6738.4, abs=0.1)


def test_commands(command, data, tmp_path):
    """From a language model of random weights to captions, on the command line."""
    model, trained, image = tmp_path / "0", tmp_path / "1", data.parent / "0.png"

    def call(*words):
        result = command("vlm", *words)
        assert result.exit_code == 0, result.output
        return result.output

    text = call("build", "unireplknet_a", "random", "--texts", data, "--image-size", 32,
                "--out", model)  # fmt: skip
    assert "image tokens  1" in text
    settings = ("batch_size=6", "device_batch=6", "epochs=1")
    changes = [word for setting in settings for word in ("--set", setting)]
    text = call("train", model, "--data", data, "--recipe", "laptop", "--out", trained,
                "--workers", 0, "--device", "cpu", *changes)  # fmt: skip
    assert "12 conversations" in text
    assert "right is better" in call("grounding", trained, "--data", data)
    call("caption", trained, image, "--most", 2, "--out", tmp_path / "captions.csv")
    assert (tmp_path / "captions.csv").read_text().startswith(f"image,caption\n{image},")
    result = command("vlm", "caption", trained, data, "--most", 2)
    assert result.exit_code == 2  # no image
    result = command("vlm", "build", "unireplknet_a", "random", "--out", model)
    assert "`random` needs --texts" in result.stderr


def test_tower_and_projector_as_onnx(vlm, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from seewide.vision_language.export import export_tower

    (file,) = export_tower(vlm.model, tmp_path, 64)
    assert file.deviation < 1e-4
    assert file.path.stat().st_size > 1e6
