"""A Darwin Core archive (https://dwc.tdwg.org/text/), as GBIF publishes its downloads."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

DC, DWC, GBIF = "http://purl.org/dc/terms/", "http://rs.tdwg.org/dwc/terms/", "http://rs.gbif.org/terms/1.0/"
OCCURRENCE = [
    f"{GBIF}gbifID",
    f"{DC}license",
    f"{DWC}basisOfRecord",
    f"{DWC}scientificName",
    f"{DWC}genus",
    f"{GBIF}species",
]
MEDIUM = (
    "type format identifier references title description source audience created creator contributor publisher "
    "license rightsHolder"
)
MULTIMEDIA = [f"{GBIF}gbifID", *(DC + term for term in MEDIUM.split())]
OCCURRENCES = [
    ["101", "CC_BY_4_0", "HUMAN_OBSERVATION", '"Amanita" muscaria (L.) Lam.', "Amanita", "Amanita muscaria"],
    ["102", "CC0_1_0", "HUMAN_OBSERVATION", "Boletus L.", "Boletus", ""],
]
BY_NC = "http://creativecommons.org/licenses/by-nc/4.0/"


def medium(key: str, kind: str, form: str, identifier: str, licence: str = "") -> list[str]:
    """A row of multimedia.txt."""
    return [key, kind, form, identifier, *[""] * 9, licence, "A. Nonymous"]


MEDIA = [
    medium("102", "StillImage", "image/jpeg", "http://x/1.jpg"),
    medium("101", "StillImage", "image/jpeg", "http://x/2.jpg", BY_NC),
    medium("101", "Sound", "audio/mpeg", "http://x/song.mp3"),
    medium("101", "", "image/png", "http://x/3.png"),
    medium("101", "StillImage", "", "http://x/4.jpg", BY_NC),
    medium("102", "StillImage", "image/jpeg", ""),  # only a web page about it
]


SEPARATED = 'fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1"'


def described(tag: str, kind: str, name: str, key: str, terms: Sequence[str]) -> str:
    """The description of a file in meta.xml."""
    fields = "\n".join(f'    <field index="{index}" term="{term}"/>' for index, term in enumerate(terms))
    return f"""
  <{tag} encoding="UTF-8" {SEPARATED} rowType="{kind}">
    <files>
      <location>{name}</location>
    </files>
    <{key} index="0" />
{fields}
  </{tag}>"""


META = (
    '<archive xmlns="http://rs.tdwg.org/dwc/text/" metadata="metadata.xml">'
    + described("core", f"{DWC}Occurrence", "occurrence.txt", "id", OCCURRENCE)
    + described("extension", f"{DWC}Occurrence", "verbatim.txt", "coreid", OCCURRENCE)
    + described("extension", f"{GBIF}Multimedia", "multimedia.txt", "coreid", MULTIMEDIA)
    + "\n</archive>\n"
)


def text_table(terms: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text file of tabs, headed by the last parts of the terms."""
    return "".join("\t".join(row) + "\n" for row in [[term.split("/")[-1] for term in terms], *rows])


def gbif_archive(path: Path, **replaced: str) -> Path:
    """A download as GBIF publishes it."""
    files = {
        "meta.xml": META,
        "occurrence.txt": text_table(OCCURRENCE, OCCURRENCES),
        "verbatim.txt": text_table(OCCURRENCE, OCCURRENCES),
        "multimedia.txt": text_table(MULTIMEDIA, MEDIA),
        "metadata.xml": "<eml><title>GBIF Occurrence Download 10.15468/dl.ab12cd</title></eml>",
        "citations.txt": "When using this dataset please use the following citation ...",
    } | {name.replace("_", "."): content for name, content in replaced.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
