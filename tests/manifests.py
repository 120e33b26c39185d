"""The files of deploy/, as tests read them."""

from configparser import ConfigParser
from typing import Any

import yaml

from config.env import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
KUSTOMIZATION = DEPLOY / "kubernetes/kustomization.yaml"
KUBERNETES = sorted(set((DEPLOY / "kubernetes").glob("*.yaml")) - {KUSTOMIZATION})

Document = dict[str, Any]

DOCUMENTS: dict[str, Document] = {
    f"{path.stem}: {document['kind']} {document['metadata']['name']}": document
    for path in KUBERNETES
    for document in yaml.safe_load_all(path.read_text())
}
CLOUD_RUN: Document = yaml.safe_load((DEPLOY / "cloudrun/service.yaml").read_text())


def find(kind: str, name: str) -> Document:
    """Return the one document of a kind and a name."""
    (found,) = [one for one in DOCUMENTS.values() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(document: Document) -> Document:
    """Return the pod that a Deployment, a Job or Cloud Run's Service creates."""
    pod: Document = document["spec"]["template"]["spec"]
    return pod


def containers_of(document: Document) -> list[Document]:
    """Return all containers of the document's pod."""
    pod = pod_of(document)
    return [*pod.get("initContainers", []), *pod["containers"]]


def container_of(document: Document, name: str) -> Document:
    """Return one container of the document's pod."""
    (found,) = [one for one in containers_of(document) if one["name"] == name]
    return found


INI_TEXTS: dict[str, str] = {
    "sidecar": find("ConfigMap", "poolhouse-sidecar")["data"]["pgbouncer.ini"],
    "central": find("ConfigMap", "poolhouse-pgbouncer")["data"]["pgbouncer.ini"],
    "cloudrun": (DEPLOY / "cloudrun/pgbouncer.ini").read_text(),
}


def parse(text: str) -> ConfigParser:
    """Return the parsed text of a pgbouncer.ini."""
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(text)
    return parser
