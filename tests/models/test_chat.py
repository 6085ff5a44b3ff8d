"""Chat templates: prompts stand inside the user turn, soft tokens too; plain text stays what it was."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from latentwire.errors import MismatchError, ModelError, UsageError
from latentwire.models.chat import Prompter, PromptStyle, style_name
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.source import resolve
from latentwire.prompts import Prompt
from tests.conftest import WIDTH

#: family → template in the manner of that family: with and without begin-of-text, a space or a line break before the answer
TEMPLATES = {
    "llama": (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n\n{{ m.content | trim }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "qwen3": (
        "{% for m in messages %}<im_start>{{ m.role }}\n{{ m.content }}<im_end>\n{% endfor %}"
        "{% if add_generation_prompt %}<im_start>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
    ),
}
ASK = Prompt("Read this.", "\nQuestion: How many apples?\nAnswer:")
CONTEXTS = ["Maria left 47 apples in Lisbon.", "Tom has 12 red chairs."]


@pytest.fixture(scope="module")
def chat_folder(family_folder: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The random models of ``family_folder`` with a tokenizer that has a chat template: family → folder."""
    from shutil import copytree

    from transformers import AutoModelForCausalLM

    folders = {}
    for family, template in TEMPLATES.items():
        folder = tmp_path_factory.mktemp("chat") / family
        copytree(family_folder[family], folder)
        tokenizer = resolve("nano-llama").tokenizer
        if family == "qwen3":
            tokenizer.add_tokens(["<im_end>"], special_tokens=True)
            model = AutoModelForCausalLM.from_pretrained(folder)
            model.resize_token_embeddings(len(tokenizer))
            model.save_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        folders[family] = str(folder)
    return folders


@cache
def receiver_of(folder: str, style: PromptStyle = "auto") -> Receiver:
    return load_receiver(folder, prompt_style=style)


@cache
def sender_of(folder: str, style: PromptStyle = "auto") -> Sender:
    return load_sender(folder, layer=2, prompt_style=style)


def rendered(folder: str, *messages: tuple[str, str], to_be_answered: bool) -> list[int]:
    """The tokens that the tokenizer itself makes of a conversation."""
    tokenizer = resolve(folder).tokenizer
    conversation = [{"role": role, "content": text} for role, text in messages]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=to_be_answered, enable_thinking=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_prompt_is_read_as_the_template_writes_it(chat_folder: dict[str, str], family: str) -> None:
    prompter = Prompter(resolve(chat_folder[family]))
    before, after = prompter.prefix_ids(ASK)
    assert [*before, *after] == rendered(chat_folder[family], ("user", ASK.text), to_be_answered=True)
    assert prompter.count([ASK, ASK]) == [len(before) + len(after)] * 2
    assert (*before, *after).count(prompter.tokenizer.bos_token_id) == (0 if family == "qwen3" else 1)


@pytest.mark.parametrize("family", TEMPLATES)
def test_an_answer_continues_the_conversation_as_the_template_writes_it(chat_folder: dict[str, str], family: str) -> None:
    prompter = Prompter(resolve(chat_folder[family]))
    conversation = [token for part in prompter.prefix_ids(ASK) for token in part] + prompter.answer_ids(ASK, "47 apples")
    if family == "qwen3":  # its template leaves the empty thought out of past turns
        assert prompter.tokenizer.decode(conversation).endswith("<think></think>47 apples<im_end>")
        assert conversation[-1] == prompter.tokenizer.convert_tokens_to_ids("<im_end>")
    else:
        assert conversation == rendered(chat_folder[family], ("user", ASK.text), ("assistant", "47 apples"), to_be_answered=False)
        assert conversation[-1] == prompter.tokenizer.eos_token_id


@pytest.mark.parametrize("family", TEMPLATES)
def test_soft_tokens_stand_inside_the_user_turn(chat_folder: dict[str, str], family: str) -> None:
    receiver = receiver_of(chat_folder[family])
    soft = SoftTokens(torch.randn(1, 3, WIDTH), torch.tensor([[True, True, False]]))
    prefix, text = receiver.prefix([ASK], soft), receiver.prefix([ASK])
    at = len(receiver.prompter.prefix_ids(ASK)[0])
    assert torch.equal(prefix.embeddings[0, at : at + 2], soft.vectors[0, :2])
    assert torch.equal(torch.cat([prefix.embeddings[0, :at], prefix.embeddings[0, at + 2 :]]), text.embeddings[0])
    assert receiver.count_tokens(ASK) == text.mask.sum()


@pytest.mark.parametrize("family", TEMPLATES)
def test_options_in_chat_style_score_as_each_alone(chat_folder: dict[str, str], family: str) -> None:
    receiver = receiver_of(chat_folder[family])
    prefix, options = receiver.prefix([ASK]), ("lost card", "card arrival", "change pin")
    together = receiver.score_options(prefix, receiver.tries([ASK], [options]))[0]
    alone = [receiver.answer_log_probs(prefix, [receiver.answer_ids(ASK, option, end=False)])[0].sum() for option in options]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", TEMPLATES)
def test_generation_stops_at_the_end_of_the_turn(chat_folder: dict[str, str], family: str) -> None:
    receiver = receiver_of(chat_folder[family])
    assert receiver.end_id in receiver.end_ids
    assert receiver.end_id == receiver.answer_ids(ASK, "47")[-1]
    assert receiver.tokenizer.eos_token_id in receiver.end_ids


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_sender_reads_the_head_of_the_turn_and_leaves_its_states_out(chat_folder: dict[str, str], family: str) -> None:
    sender = sender_of(chat_folder[family])
    whole = rendered(chat_folder[family], ("user", CONTEXTS[0]), to_be_answered=True)
    assert sender.prompter.turn is not None
    head = len(sender.tokenizer(sender.prompter.turn.head.rstrip(" "), add_special_tokens=False)["input_ids"])
    expected = sender.model(input_ids=torch.tensor([whole]), use_cache=False).last_hidden_state[0, head:]
    assert head > 1
    read = sender.read(CONTEXTS)
    torch.testing.assert_close(read.states[0][read.mask[0]], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", TEMPLATES)
def test_plain_style_leaves_a_template_alone(chat_folder: dict[str, str], family_folder: dict[str, str], family: str) -> None:
    with_template, without = receiver_of(chat_folder[family], "plain"), receiver_of(family_folder[family])
    assert torch.equal(with_template.prefix([ASK]).embeddings, without.prefix([ASK]).embeddings)
    assert with_template.answer_ids(ASK, "47") == without.answer_ids(ASK, "47")
    read, before = sender_of(chat_folder[family], "plain").read(CONTEXTS), sender_of(family_folder[family]).read(CONTEXTS)
    assert torch.equal(read.states, before.states)


def test_cached_states_of_the_two_styles_are_kept_apart(chat_folder: dict[str, str]) -> None:
    folder = chat_folder["llama"]
    assert sender_of(folder, "chat").key == sender_of(folder, "auto").key != sender_of(folder, "plain").key


def test_a_writer_writes_in_the_senders_style(chat_folder: dict[str, str]) -> None:
    writer = load_sender(chat_folder["mistral"], layer=1, full=True).writer
    assert writer is not None
    assert writer.prompter.style.startswith("chat:")


def test_auto_is_plain_without_a_template_and_chat_is_refused(family_folder: dict[str, str]) -> None:
    assert Prompter(resolve("nano-llama")).style == "plain"
    with pytest.raises(UsageError, match=r"^model 'nano-llama@1' has no chat template; use --prompt_style plain, or auto$"):
        Prompter(resolve("nano-llama"), "chat")


@pytest.mark.parametrize(
    "template", ["no text at all", "{{ messages[0].content }} {{ messages[0].content }}", "{{ raise(3) }}", "{% if"]
)
def test_a_template_that_cannot_be_used_is_one_line(family_folder: dict[str, str], tmp_path: Path, template: str) -> None:
    source = resolve(family_folder["llama"])
    source.tokenizer.chat_template = template
    with pytest.raises(ModelError, match=r"^the chat template of .*; use --prompt_style plain$") as caught:
        Prompter(source)
    assert "\n" not in str(caught.value)
    assert Prompter(source, "plain").style == "plain"


def test_recorded_styles_name_the_template(chat_folder: dict[str, str]) -> None:
    styles = {Prompter(resolve(folder)).style for folder in chat_folder.values()}
    assert len(styles) == 3
    assert {style_name(style) for style in styles} == {"chat"}
    assert style_name("plain") == "plain"


def test_a_text_is_cut_at_a_token_border_and_never_inside_a_character() -> None:
    for name in ("nano-llama", "nano-mistral"):
        prompter = Prompter(resolve(name))
        text = "Maria left 47 apples in Zürich 東京 🍎 and went home."
        whole = prompter.count_texts([text])[0]
        for count in range(whole + 2):
            first = prompter.first(text, count)
            assert text.startswith(first)
            assert prompter.count_texts([first])[0] <= count
        assert prompter.first(text, whole) == text


def test_a_bridge_trained_in_chat_is_refused_in_plain() -> None:
    from latentwire.bridges.base import BridgePair, ModelIdentity

    model = ModelIdentity(name="m", revision=None, fingerprint="f", tokenizer_hash="t")
    pair = BridgePair(
        sender=model,
        receiver=model,
        sender_layer=1,
        sender_prompt="{context}",
        receiver_prompt="{message}",
        receiver_style="chat:12",
    )
    pair.check(sender=model, receiver=model, sender_layer=1, receiver_style="chat:12")
    with pytest.raises(MismatchError, match=r"receiver prompt style chat:12 of 'm', given are plain of 'm'"):
        pair.check(sender=model, receiver=model, sender_layer=1)


def test_a_bridge_is_trained_evaluated_and_used_in_the_style_it_records(chat_folder: dict[str, str], tmp_path: Path) -> None:
    from latentwire import Telepathy
    from latentwire.evaluation.evaluator import EvaluationSettings
    from latentwire.evaluation.run import EvaluationRequest, evaluate_run
    from latentwire.training.run import train_run
    from tests.training.test_trainer import small_config

    ends = {"sender": {"model": chat_folder["llama"], "layer": 1}, "receiver": {"model": chat_folder["mistral"]}}
    train_run(small_config(tmp_path / "run", **ends))
    wire = Telepathy.from_pretrained(tmp_path / "run" / "bridge", device="cpu")
    assert wire.pair.sender_style == wire.sender.prompter.style == Prompter(resolve(chat_folder["llama"])).style
    assert wire.pair.receiver_style == Prompter(resolve(chat_folder["mistral"])).style
    assert wire.ask(wire.send(CONTEXTS), ["How many apples?"])
    request = EvaluationRequest(tmp_path / "run", max_rows=4, settings=EvaluationSettings(latency_rows=0))
    assert evaluate_run(request)["rows"]
    plain = small_config(tmp_path / "plain", **ends, prompt_style="plain")
    train_run(plain)
    assert Telepathy.from_pretrained(tmp_path / "plain" / "bridge", device="cpu").receiver.prompter.style == "plain"


@pytest.mark.parametrize("most", [0, 4, 11, 30, 300])
@pytest.mark.parametrize("style", ["plain", "chat"])
@pytest.mark.parametrize("family", TEMPLATES)
def test_prompts_that_are_too_long_are_found_without_counting_the_others(
    chat_folder: dict[str, str], family: str, style: PromptStyle, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = Prompter(resolve(chat_folder[family]), style)
    long = [Prompt("a b c " * 40, "\nAnswer:"), Prompt("0123456789" * 3, "")]
    prompts = [ASK, Prompt("", ""), Prompt("Ünïcödé 日本語", "!"), *long, ASK]
    counts = prompter.count(prompts)
    assert prompter.longer(prompts, most) == {place: count for place, count in enumerate(counts) if count > most}
    texts = [prompt.text for prompt in prompts]
    spelled = [prompter.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in texts]
    assert prompter.count_texts(texts) == [len(ids) for ids in spelled]
    counted: list[int] = []
    monkeypatch.setattr(prompter, "count", lambda prompts: counted.append(len(prompts)) or [])
    assert prompter.longer([ASK] * 5, 300) == {}
    assert counted == [0]


def test_a_template_that_asks_for_the_time_is_the_same_every_day(
    family_folder: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import copytree

    folder = tmp_path / "dated"
    copytree(family_folder["llama"], folder)
    tokenizer = resolve("nano-llama").tokenizer
    tokenizer.chat_template = "Today is {{ strftime_now('%d %B %Y') }}. " + TEMPLATES["llama"]
    tokenizer.save_pretrained(folder)
    prompter = Prompter(resolve(str(folder)), "chat")
    assert prompter.turn is not None
    assert prompter.turn.head.startswith("Today is 26 Jul 2024. ")
