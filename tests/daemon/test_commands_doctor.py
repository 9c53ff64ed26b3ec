"""`pondwatch doctor`: what helps from afar, and none of the secrets planted wherever a secret may be."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from daemon.bundle import Bundle
from daemon.commands import main
from daemon.founding import enrol
from daemon.scrub import MASK, masked, scrubbed
from tests.fault.test_site_file import gateway
from tests.system.running import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

PLANTED = {
    "password in a file": "hunter2/broker@Gx7",
    "password in a comment": "Kommentar-Geheim-1",
    "telephone": "+86 138 0000 4711",
    "name of a person": "欧阳某某",
    "password in the journal, known from its file": "hunter2/broker@Gx7",
    "token in the journal, known from nowhere": "eyJhbGciOi.unknown.token",
    "password in a URL, known from nowhere": "pw4nobodyKnows",
    "password with a slash and an @ in a URL": "pw5/any@body?Knows",
    "password as a URL writes it": "hunter2%2Fbroker%40Gx7",
    "authorization": "Basic dXNlcjpwYXNz",
    "key block in the journal": "MIIEvQIBADANBgkqhkiG9w0BAQEF",
}


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {
            member.name.rpartition("/")[2]: content.read().decode()
            for member in tar
            if (content := tar.extractfile(member)) is not None
        }


async def test_no_planted_secret_is_in_the_bundle_of_a_running_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets, bin_ = tmp_path / "secrets", tmp_path / "bin"
    enrol.request(secrets, "s", "gw1")
    (secrets / "password").write_text(PLANTED["password in a file"] + "\n")
    bin_.mkdir()
    said = [
        f"broker refused {PLANTED['password in the journal, known from its file']}",
        f"token={PLANTED['token in the journal, known from nowhere']}",
        f"mqtts://gw1:{PLANTED['password in a URL, known from nowhere']}@broker.example:8883 is away",
        f"'sftp://gw1:{PLANTED['password with a slash and an @ in a URL']}@broker.example/in' is away",
        f"POST /write?p={PLANTED['password as a URL writes it']} 401",
        f"Authorization: {PLANTED['authorization']}",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED['key block in the journal']}\n-----END PRIVATE KEY-----",
        "line rs485-1 is open again",
    ]
    (bin_ / "journalctl").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(said) + "\nEND\n")
    (bin_ / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    async with gateway(tmp_path) as here:
        person = f'\n[[person]]\nid = "x"\nname = "{PLANTED["name of a person"]}"\nphone = "{PLANTED["telephone"]}"\n'
        comment = f"# the broker's password is {PLANTED['password in a comment']}\n"
        text = here.good.replace(
            'kind = "mqtt"', f'kind = "mqtt"\nusername = "gw1"\npassword_file = "{secrets}/password"', 1
        )
        here.site.write_text(comment + text + person)
        (key,) = await until(lambda: list((here.daemon.store / "keys").glob("*.key")), "the first key")
        private = json.loads(key.read_bytes())["private"]
        tls = (secrets / "gw1.key").read_text().splitlines()[1]
        to = tmp_path / "bundle.tar.gz"
        monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
        code, out = await here.daemon.verb("doctor", "--to", str(to), "--secrets", str(secrets))
        assert code == 0, out
        here.site.write_text(here.good)
    found = contents(to)
    everything = "\n".join(found.values())
    for what, secret in {**PLANTED, "signing key": private, "TLS key": tls}.items():
        assert secret not in everything, what
    assert to.stat().st_mode & 0o777 == 0o600
    # and what helps is there
    assert found["missing.txt"] == "nothing is missing\n"
    assert json.loads(found["status.json"])["stream"]
    assert "pondwatch_build_info" in found["metrics.txt"]
    assert "line rs485-1 is open again" in found["journal.txt"]
    assert MASK in found["journal.txt"]
    assert json.loads(found["site.json"])["uplink"][0]["password_file"] == f"{secrets}/password"
    store = json.loads(found["store.json"])
    assert store["quick_check"] == ["ok"]
    assert store["head"]["seq"] > 0
    assert "spool.db" in found["store.json"]
    assert "apsw" in found["versions.txt"]
    assert "listening:" in found["ports.txt"]
    assert "password" in found["secrets.txt"], "names of files are told"
    assert "no problem found" in found["check.txt"]


def test_without_a_core_and_with_a_broken_site_file_there_is_a_bundle_that_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
    site = tmp_path / "site.toml"
    site.write_text('[site]\nid = "s"\npassword = "oops-in-clear"\n# another-in-clear\n')
    to = tmp_path / "b.tar.gz"
    words = ["--config", str(site), "doctor", "--to", str(to), "--secrets", str(tmp_path / "none")]
    assert main(words) == 0
    found = contents(to)
    assert "site.password: " in found["check.txt"]
    assert "status.json: no core listens" in found["missing.txt"]
    assert "in-clear" not in "\n".join(found.values())
    assert main(words) == 2, "a bundle that is there stays"
    site.write_text("[site")
    bundle = Bundle(site, tmp_path, tmp_path)
    bundle.collect()
    assert "is not TOML" in bundle.parts["check.txt"]


@pytest.mark.parametrize(
    "text",
    [
        'password = "tiger"',
        "PASSWORD: tiger",
        '{"api_key":"tiger"}',
        "https://a:tiger@b/c",
        "http://tiger@b",
        "my_token='tiger'",
    ],
)
def test_what_looks_like_a_secret_is_masked_though_nobody_knows_it(text: str) -> None:
    assert "tiger" not in scrubbed(text, [])
    assert MASK in scrubbed(text, [])


def test_what_is_no_secret_stays() -> None:
    text = (
        'password_file = "/etc/pondwatch/secrets/password" key pressure 101.3 http://127.0.0.1:9464/metrics'
    )
    assert scrubbed(text, []) == text
    assert masked(
        {"uplink": [{"key": "gw1.key", "password": "a"}], "person": [{"id": "x", "name": "A"}]}
    ) == {
        "uplink": [{"key": "gw1.key", "password": MASK}],
        "person": [{"id": "x", "name": MASK}],
    }
