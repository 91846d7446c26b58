"""A table with a bit of everything: a domain, an enum, checks, references, a row that is there."""

from __future__ import annotations

import pytest

THINGS = """
CREATE TYPE public.colour AS ENUM ('RED', 'GREEN');
CREATE DOMAIN public.code AS varchar(5) CHECK (VALUE ~ '^[A-Z]+$');
CREATE TABLE public.kinds (kind text PRIMARY KEY);
INSERT INTO public.kinds VALUES ('tool'), ('toy');
CREATE TABLE public.things (
    id integer PRIMARY KEY,
    code public.code UNIQUE,
    colour public.colour NOT NULL DEFAULT 'RED',
    kind text REFERENCES public.kinds,
    price numeric(6, 2) CHECK (price >= 0),
    made_on date,
    note text,
    parent integer REFERENCES public.things
);
INSERT INTO public.things (id, code, note) VALUES (1, 'ONE', 'was here');
"""


@pytest.fixture
def things(made):
    return made(THINGS)
