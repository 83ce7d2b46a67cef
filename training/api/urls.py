from __future__ import annotations

from django.urls import path

from training.api import (
    advice,
    jobs,
    judges,
    plans,
    preflight,
    rounds,
    runs,
    sampling,
    text_sets,
    versions,
)

api_urlpatterns = [
    path("snapshots/<int:pk>/preflight", preflight.SnapshotPreflight.as_view()),
    path("advice", advice.Advising.as_view()),
    path("plan", plans.Plans.as_view()),
    path("rounds", rounds.Rounds.as_view()),
    path("rounds/<int:pk>", rounds.OneRound.as_view()),
    path("rounds/<int:pk>/progress", rounds.RoundProgress.as_view()),
    path("rounds/<int:pk>/cancel", rounds.Cancel.as_view()),
    path("rounds/<int:pk>/retry", rounds.Retry.as_view()),
    path("rounds/<int:pk>/promote", rounds.Promote.as_view()),
    path("rounds/<int:pk>/reject", rounds.Reject.as_view()),
    path("runs", runs.Runs.as_view()),
    path("runs/<int:pk>", runs.OneRun.as_view()),
    path("runs/<int:pk>/events", runs.RunEvents.as_view()),
    path("runs/<int:pk>/metrics", runs.RunMetrics.as_view()),
    path("jobs", jobs.Jobs.as_view()),
    path("jobs/<int:pk>", jobs.OneJob.as_view()),
    path("jobs/<int:pk>/cancel", jobs.Cancel.as_view()),
    path("jobs/<int:pk>/retry", jobs.Retry.as_view()),
    path("projects/<slug:slug>/judges", judges.Judges.as_view()),
    path("projects/<slug:slug>/judges/<int:pk>", judges.OneJudge.as_view()),
    path("projects/<slug:slug>/judges/<int:pk>/judgings", judges.Judgings.as_view()),
    path("projects/<slug:slug>/judges/<int:pk>/accept", judges.Accept.as_view()),
    path("queues", jobs.Queues.as_view()),
    path("samplings", sampling.Samplings.as_view()),
    path("text-sets", text_sets.TextSets.as_view()),
    path("text-sets/<int:pk>", text_sets.OneTextSet.as_view()),
    path("versions", versions.Versions.as_view()),
    path("versions/<int:pk>", versions.OneVersion.as_view()),
]
