"""Filling the temp tables: what is sent in binary form is what the file says, and reading ends with the plan."""

from __future__ import annotations

import gc
import threading

import psycopg

from engine.imports import fill


def test_reading_ends_with_the_plan_that_fails(made, monkeypatch):
    world = made("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    calls = []

    def cancelled(copy, data):
        calls.append(len(data))
        if len(calls) == 3:
            raise psycopg.errors.QueryCanceled("what a cancel makes of a COPY")
        copy.write(data)

    monkeypatch.setattr(fill, "write_copy", cancelled)
    gc.disable()  # it would be luck
    try:
        world.plan("t", b"id,v\n" + b"".join(b"%d,%s\n" % (i, b"x" * 100) for i in range(50_000)))
        assert [t.name for t in threading.enumerate() if t.name.startswith("ahead")] == []
    finally:
        gc.enable()


def test_null_stays_null_in_a_type_with_a_default(made):
    world = made(
        "CREATE TYPE public.mt;"
        "CREATE FUNCTION public.i(cstring) RETURNS public.mt LANGUAGE internal IMMUTABLE STRICT AS 'textin';"
        "CREATE FUNCTION public.o(public.mt) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';"
        "CREATE FUNCTION public.r(internal) RETURNS public.mt LANGUAGE internal IMMUTABLE STRICT AS 'textrecv';"
        "CREATE FUNCTION public.s(public.mt) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'textsend';"
        "CREATE TYPE public.mt (INPUT = public.i, OUTPUT = public.o, RECEIVE = public.r, SEND = public.s, LIKE = text,"
        " DEFAULT = 'zzz');"
        "CREATE TABLE public.t (id int PRIMARY KEY, v public.mt)"
    )
    world.load("t", b"id,v\n1,\n2,a\n")

    assert world.sql("SELECT id, v::text FROM public.t ORDER BY id") == [(1, None), (2, "a")]
