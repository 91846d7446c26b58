"""Files that no other test reads: the locks and the production shape."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from engine.config import load_settings

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("lock", ["requirements.lock", "docker/requirements.lock"])
def test_a_lock_names_hashes_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    pinned = re.findall(r"^[a-z0-9].*$", text, re.MULTILINE)
    assert pinned
    assert all(re.match(r"\S+==\S+( ; [^\\]+)? \\$", line) for line in pinned)
    assert text.count("--hash=sha256:") >= len(pinned)


def test_every_dependency_is_in_the_lock() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    wanted: list[str] = []
    for file in ("pyproject.toml", "clients/python/pyproject.toml"):
        project = tomllib.loads((ROOT / file).read_text())
        wanted += project["build-system"]["requires"] + project["project"]["dependencies"]
        for extra in project["project"]["optional-dependencies"].values():
            wanted += extra
    names = {re.split(r"[\[<>=;~! ]", line, maxsplit=1)[0].lower() for line in wanted}
    assert names - locked == {"dataops-client"}


def test_the_production_shape_sets_only_known_settings(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "redis", "upgrade", "server", "worker"}
    assert "noeviction" in services["redis"]["command"]
    secret = tmp_path / "secret"
    secret.write_text("postgresql://value/value\n")
    for name in ("upgrade", "server", "worker"):
        service = services[name]
        environment = {
            key: str(secret) if str(value).startswith("/run/secrets/") else str(value)
            for key, value in service["environment"].items()
        }
        assert load_settings(environment).control_dsn == "postgresql://value/value"
        mounted = {str(value) for value in service["environment"].values() if "/run/secrets/" in str(value)}
        assert {Path(path).name for path in mounted} == set(service["secrets"]) <= set(compose["secrets"])
        assert service["user"] != "0"
        assert service["build"]["dockerfile"] == "docker/Dockerfile"
    for name in ("server", "worker"):
        probe = services[name]["healthcheck"]["test"][-1]
        assert f"http://{services[name]['environment']['DATAOPS_HEALTH_LISTEN']}/readyz" in probe
