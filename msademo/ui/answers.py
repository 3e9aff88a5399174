"""JSON schemas of what the endpoints answer, for the OpenAPI document. A test holds them against real answers."""

from __future__ import annotations


def _kind(kind, says: str = "", **more) -> dict:
    return {"type": kind, **({"description": says} if says else {}), **more}


def number(says: str = "") -> dict:
    return _kind("number", says)


def maybe_number(says: str = "") -> dict:
    return _kind(["number", "null"], says)


def whole(says: str = "") -> dict:
    return _kind("integer", says)


def text(says: str = "") -> dict:
    return _kind("string", says)


def maybe_text(says: str = "") -> dict:
    return _kind(["string", "null"], says)


def truth(says: str = "") -> dict:
    return _kind("boolean", says)


def many(items: dict, says: str = "") -> dict:
    return _kind("array", says, items=items)


def thing(says: str = "", optional: tuple[str, ...] = (), null: bool = False, **properties) -> dict:
    """An object with exactly these properties; those not optional are always there."""
    return _kind(["object", "null"] if null else "object", says, properties=properties, required=[name for name in properties if name not in optional],
                 additionalProperties=False)


def by_name(values: dict, says: str = "", null: bool = False) -> dict:
    return _kind(["object", "null"] if null else "object", says, additionalProperties=values)


_SCORES = {"score": number("On the label scale, negative to positive."), "label": text("The whole number that the score rounds to, in words."),
           "complete_score": number("The same model's score with nothing taken away."), "complete_label": text(), "change": number("score - complete_score.")}
_COMPARISON = thing("What changes between two ways of looking; all but js_divergence is left out where nothing is left to compare.",
                    optional=("l1", "top5_overlap", "words", "moments"), first=text(), second=text(), js_divergence=maybe_number("In bits."), l1=number(), top5_overlap=number(),
                    words=many(thing(text=text(), index=whole(), moved=number(), towards=thing(start=number(), end=number()))),
                    moments=many(thing(start=number(), end=number(), gained=number())))
_ALIGNMENT = thing("Last layer, mean of the heads; words, times and maps only where maps were asked for.", optional=("words", "times", "maps"),
                   layers=by_name(whole()), heads=whole(), entropy=by_name(maybe_number("In bits.")), entropy_if_even=number(), comparisons=many(_COMPARISON),
                   words=many(text()), times=many(many(number())), maps=by_name(many(many(maybe_number())), "Words x moments by view; null where missing."))
_CLIP = thing(
    "A clip under what was taken away; score, label and change are of the first model asked.", **_SCORES, model=text("The first model asked."),
    scale=many(number(), "Lowest and highest score."), predictions=by_name(thing(**_SCORES), "Every model's answer."),
    guidance=thing("What the teacher was told.", null=True, source=text("offline, openai, typed or none."), written_from=text(), visual=text(), language=text(),
                   multimodal=text(), note=text()),
    alignments=by_name(_ALIGNMENT, "What the words look at, in vision and audio."),
    modalities=by_name(thing(ratio=number("What was asked to go."), kind=text(), present=truth("Did the clip bring it at all?"), units=whole("Words or feature tokens."),
                             missing=whole("How many of them are missing."),
                             shows=by_name(number(), "By emotion, what the voice or expression network makes of what is left; empty of words and where nothing is left.")),
                       "text, audio and vision."),
    words=many(thing(text=text(), start=maybe_number("Seconds."), end=maybe_number("Seconds."), missing=truth())), transcript_source=text("Who says what was spoken."),
    recovery=by_name(thing(error=maybe_number("Mean squared error of PGLH's recovery on masked tokens."), mean_error=maybe_number("The same of the training mean."))),
    alpha=by_name(number(), "PGLH's mixing weights of the prompts."), beta=by_name(number(), "PGLH's mixing weights of the recovery."), duration=number("Seconds."),
    seed=whole(), notes=many(text(), "What the caller should know, a sentence each."), provenance=by_name({}, "What the models were trained on."))
_SHARES = by_name(number(), "By class.", null=True)
_POST = thing(
    "A post under what was taken away.", label=text("negative, neutral or positive."), probability=number("Of the label."), complete_label=text(),
    change=number("How the probability of the complete post's class moved."), classes=many(text()),
    paths=by_name(thing(label=maybe_text(), probabilities=_SHARES, complete_label=maybe_text(), complete_probabilities=_SHARES), "image, text and fusion; null where that half is absent."),
    image_weight=number("The picture's part in the fusion."), words=many(thing(text=text(), missing=truth(), relevance=maybe_number())),
    patches=thing(grid=many(whole(), "Rows, columns."), box=many(whole(), "x1 y1 x2 y2 of the picture that the grid covers."), missing=many(whole(), "Numbers of hidden patches, row by row.")),
    captions=thing("Stage captions of the complete picture.", null=True, tone=text(), content=text(), emotion=text(), source=text("offline, openai or typed."), note=text()),
    overlays=by_name(thing(similarity=maybe_number("Cosine of picture and caption."), relevance_on_faces=maybe_number(), faces_cover=maybe_number(), concentration=number(),
                           patches_with_half=whole(), relevance=many(number(), "A value a patch.")), "By stage, and final.", null=True),
    missing=by_name(number(), "The ratios asked for."), seed=whole(), notes=many(text(), "What the caller should know, a sentence each."), provenance=by_name({}))


def _rows(result: str) -> dict:
    return many(thing(file=maybe_text("What the file is called."), result={"anyOf": [{"$ref": f"#/components/schemas/{result}"}, {"type": "null"}]},
                      error=maybe_text("One sentence, where there is no result.")), "A row an item, in the order sent.")


SCHEMAS = {"ClipResult": _CLIP, "PostResult": _POST, "ClipRows": _rows("ClipResult"), "PostRows": _rows("PostResult")}
ANSWERS = {"analyze_clip": "ClipResult", "analyze_post": "PostResult", "analyze_clips": "ClipRows", "analyze_posts": "PostRows"}      # by endpoint
