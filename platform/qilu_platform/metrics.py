"""Metrics of `/metrics`, in a separate registry, because several services may run in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qilu_platform_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "qilu_platform_request_seconds",
            "Time until a request was answered; event streams are left out.",
            ["route"],
            registry=self.registry,
        )
        self.failures = Counter(
            "qilu_platform_task_failures",
            "Failed rounds of a background task.",
            ["task"],
            registry=self.registry,
        )
        self.foreign_answers = Counter(
            "qilu_platform_foreign_answers",
            "Answers to commands by edge nodes that do not speak for the unit.",
            registry=self.registry,
        )
        self.clients = Gauge(
            "qilu_platform_event_clients", "Clients that listen to /v1/events.", registry=self.registry
        )
        self.programme = Gauge(
            "qilu_platform_programme",
            "The programme's counts, whole province.",
            ["count"],
            registry=self.registry,
        )
