"""`/metrics`, read with Prometheus' own parser."""

import asyncio
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from conftest import speech
from realtime import person

DOCUMENTED = Path(__file__).parent.parent / "docs" / "metrics.md"


def page(url):
    answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def values(url):
    families = text_string_to_metric_families(page(url))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_a_conversation_is_measured_and_nothing_of_it_is_told(url):
    async def talk():
        async with person(url, instructions="Answer in one short sentence.") as one:
            one.say(speech("austen-0930.flac"))
            _, done = await one.until("response.done")
            assert done.response.status == "completed", done.response.status_details

    before = values(url)
    asyncio.run(asyncio.wait_for(talk(), 240))
    ended = "duologue_sessions_ended_total", ("reason", "client_closed")
    for _ in range(100):
        after = values(url)
        if after.get(ended, 0) > before.get(ended, 0):
            break
        asyncio.run(asyncio.sleep(0.1))

    def more(name, **labels):
        key = name, *sorted(labels.items())
        return after.get(key, 0) - before.get(key, 0)

    assert more("duologue_sessions_begun_total", transport="websocket") >= 1
    assert more("duologue_sessions_ended_total", reason="client_closed") >= 1
    assert more("duologue_turns_total") >= 1
    assert more("duologue_replies_total", status="completed") >= 1
    assert more("duologue_voice_to_voice_seconds_count") >= 1
    for step in ["end_of_turn", "transcript", "first_clause", "first_audio", "sent"]:
        assert more("duologue_turn_step_seconds_count", step=step) >= 1, step
    assert more("duologue_transcription_seconds_count", kind="final") >= 1
    assert more("duologue_llm_first_token_seconds_count") >= 1
    assert more("duologue_worker_utterances_total") >= 1
    assert more("duologue_inference_wait_seconds_count", pool="ear") > 10
    assert more("duologue_reactor_lag_seconds_count") > 10
    assert more("duologue_frame_lateness_seconds_count") > 10
    assert more("duologue_transcription_real_time_factor_count") >= 1
    assert more("duologue_received_bytes_total", transport="websocket") > 100_000
    assert more("duologue_sent_bytes_total", transport="websocket") > 50_000
    assert after["duologue_process_resident_bytes",] > 10_000_000
    assert after["duologue_models_resident",] >= 1
    assert "amiable" not in page(url).lower()


def test_all_that_is_measured_is_documented(url):
    documented = DOCUMENTED.read_text()
    for family in text_string_to_metric_families(page(url)):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in documented, name
        assert family.documentation, name
