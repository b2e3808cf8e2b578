"""The explanation of a policy as text that is read from top to bottom."""

from __future__ import annotations

from textwrap import fill

from edgekit.policy.clauses import (
    AccuracyDropClause,
    BaselineClause,
    BudgetClause,
    LocalisationClause,
    WrongEvidenceClause,
)
from edgekit.policy.explain import Explanation
from edgekit.policy.needs import ClauseNeeds
from edgekit.policy.words import percent

__all__ = ["explanation_in_words"]

_WIDTH = 100
_INDENT = "   "


def explanation_in_words(explanation: Explanation) -> str:
    """What a policy demands, clause by clause, how many samples that takes, and what the clauses mean together."""
    parts = [_opening(explanation)]
    parts += [_clause(number, each, explanation) for number, each in enumerate(explanation.clauses, start=1)]
    parts += [_samples(explanation), _together(explanation)]
    return "\n\n".join(parts)


def _filled(text: str, first: str = "", rest: str = "") -> str:
    """Broken into lines, but never between a number and its percent sign."""
    bound = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return fill(bound, _WIDTH, initial_indent=first, subsequent_indent=rest).replace("\N{NO-BREAK SPACE}", " ")


def _opening(explanation: Explanation) -> str:
    policy, count = explanation.policy, len(explanation.clauses)
    held = "its one demand holds" if count == 1 else f"all {count} demands hold"
    optional = sum(not each.required for each in explanation.clauses)
    left = f" ({optional} of them only where there is something to measure it by)" if optional else ""
    text = (
        f"A release passes policy {policy.name!r} when {held}{left}, on at least {policy.min_samples} golden samples. "
        "It fails as soon as one demand is shown not to hold; what is shown neither way is inconclusive, and does not "
        "pass."
    )
    if policy.sequential:
        text += (
            " It is sequential: the samples are taken in a random order, and the verification stops as soon as every "
            "demand is decided; the numbers of samples below are those at which it would."
        )
    return _filled(text)


def _clause(number: int, each: ClauseNeeds, explanation: Explanation) -> str:
    lines = [f"judged by {each.judged_by}"]
    if each.needs:
        lines.append(_needed(each))
    lines.append(_how_many(each))
    if each.samples is not None:
        lines.append(_at(each, explanation))
    told = [_filled(line, _INDENT, _INDENT) for line in lines if line]
    return "\n".join([_filled(f"{number}. {each.text}", rest=_INDENT), *told])


def _needed(each: ClauseNeeds) -> str:
    otherwise = "inconclusive without" if each.required else "left out without"
    return f"needs {' and '.join(each.needs)}; {otherwise}"


def _how_many(each: ClauseNeeds) -> str:
    if isinstance(each.clause, BudgetClause):
        return ""
    of_each = " in each class" if each.per_class else ""
    if each.flawless is None:
        if isinstance(each.clause, BaselineClause):
            return "an engine that is merely as good never shows it: it has to be better"
        return "no practical number of samples shows it"
    if each.rates:
        by_outcome = {
            outcome: [f"{rate.samples} at {percent(rate.rate)}" for rate in each.rates if rate.outcome == outcome]
            for outcome in ("pass", "fail")
        }
        text = f"samples that show it{of_each}: " + ", ".join([f"{each.flawless} if all are good", *by_outcome["pass"]])
        return f"{text}; that show it to fail: {', '.join(by_outcome['fail'])}"
    kind = "samples with a mask" if isinstance(each.clause, LocalisationClause) else "samples"
    if isinstance(each.clause, BaselineClause):
        kind = "samples that the baseline has too"
    elif "labels" in each.needs:
        kind = "samples with a label"
    text = f"takes at least {each.flawless} {kind}{of_each}"
    if each.depends_on_spread:
        text += ", and more the closer it is and the more values scatter: their number grows with the square of both"
    return text


def _at(each: ClauseNeeds, explanation: Explanation) -> str:
    if isinstance(each.clause, BudgetClause):
        return ""
    counted = "samples answered rightly" if isinstance(each.clause, WrongEvidenceClause) else "samples"
    of = f"of {each.samples} {counted}" + (
        f" ({explanation.samples} over {explanation.multiplicity.classes} classes)" if each.per_class else ""
    )
    if not each.can_pass:
        return f"{of}: cannot be shown"
    if isinstance(each.clause, AccuracyDropClause):
        return f"{of}, if all have a label: holds with at most {each.failures} right answers fewer than the teacher"
    if each.failures is not None:
        return f"{of}: holds with at most {each.failures} that are not good"
    return f"{of}: can be shown"


def _samples(explanation: Explanation) -> str:
    lines: list[str] = []
    if explanation.smallest is None:
        lines.append("No number of golden samples is enough for an engine that is merely flawless.")
    else:
        per_class = " in every class" if any(each.per_class for each in explanation.clauses) else ""
        lines.append(
            f"Golden samples: with fewer than {explanation.smallest} this policy cannot pass, however good the engine"
            + (f"; clauses over classes need theirs{per_class}." if per_class else ".")
        )
    if explanation.samples is not None:
        lines.append(_with(explanation))
    needs = explanation.needs
    if needs:
        lines.append(f"Without {', '.join(needs)} it cannot pass.")
    return "\n".join(_filled(line) for line in lines)


def _with(explanation: Explanation) -> str:
    short = [number for number, each in enumerate(explanation.clauses, 1) if each.required and not each.can_pass]
    if short:
        return f"With {explanation.samples} it cannot: demand {', '.join(map(str, short))} would not be shown."
    return f"With {explanation.samples} it can."


def _together(explanation: Explanation) -> str:
    """What several demands mean together, in the three sentences that are true."""
    several = explanation.multiplicity
    if not several.risks:
        return _filled(
            "No demand has a confidence bound: the verdict is about these golden samples and claims nothing of others."
        )
    bounded = [str(number) for number, each in enumerate(explanation.clauses, 1) if each.confidence is not None]
    those = f"demand {bounded[0]}" if len(bounded) == 1 else f"demands {', '.join(bounded[:-1])} and {bounded[-1]}"
    one = those if len(bounded) == 1 else f"one of {those}"
    lines = [
        _counted(explanation, those),
        f"- A release that violates {one} passes with a probability of at most "
        f"{percent(round(several.false_pass, 9))}: passing takes all of them, the violated one too, so that several "
        "need no correction.",
        f"- All bounds are right at once with a probability of at least {percent(round(several.all_hold, 9))}.",
        f"- An engine that meets {those} is said to fail there with a probability of at most "
        f"{percent(round(several.false_block, 9))}; that too few samples leave it inconclusive is more likely.",
    ]
    if len(bounded) < len(explanation.clauses):
        lines.append("- The other demands are about these golden samples alone, and claim nothing of others.")
    if explanation.policy.family_confidence is None and len(several.risks) > 1:
        lines.append(
            "- family_confidence: 0.95 in the policy would make all bounds right at once with 95 % confidence, and "
            "ask for more samples."
        )
    return "\n".join(_filled(line, rest="  " if line.startswith("-") else "") for line in lines)


def _counted(explanation: Explanation, those: str) -> str:
    several = explanation.multiplicity
    count = len(several.risks)
    text = (
        f"Together: {those} {'is' if count == 1 else 'are'} judged by {'a bound' if count == 1 else f'{count} bounds'}"
    )
    if several.classes is not None:
        text += f", counting {several.classes} {'class' if several.classes == 1 else 'classes'}"
    if any("approximate" in each.judged_by for each in explanation.clauses):
        text += "; those of the bootstrap are approximate, and so is what follows from them"
    return text + "."
