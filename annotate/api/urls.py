from __future__ import annotations

from django.urls import path

from annotate.api import (
    comparisons,
    flags,
    imports,
    labels,
    people,
    projects,
    prompts,
    queue,
    snapshots,
    terms,
)

api_urlpatterns = [
    path("projects", projects.Projects.as_view()),
    path("projects/<slug:slug>", projects.OneProject.as_view()),
    path("projects/<slug:slug>/progress", projects.ProjectProgress.as_view()),
    path("projects/<slug:slug>/agreement", projects.ProjectAgreement.as_view()),
    path("projects/<slug:slug>/throughput", projects.ProjectThroughput.as_view()),
    path("projects/<slug:slug>/comparisons", comparisons.Comparisons.as_view()),
    path("projects/<slug:slug>/comparisons/<int:pk>", comparisons.OneComparison.as_view()),
    path("projects/<slug:slug>/terms", terms.Terms.as_view()),
    path("projects/<slug:slug>/imports", imports.Imports.as_view()),
    path("projects/<slug:slug>/texts", imports.TextImports.as_view()),
    path("projects/<slug:slug>/rankings", imports.RankingImports.as_view()),
    path("projects/<slug:slug>/labels", labels.Labels.as_view()),
    path("projects/<slug:slug>/next", queue.Next.as_view()),
    path("projects/<slug:slug>/ahead", queue.Ahead.as_view()),
    path("projects/<slug:slug>/consent", people.Consent.as_view()),
    path("projects/<slug:slug>/flags", flags.Flags.as_view()),
    path("projects/<slug:slug>/undo", queue.Undo.as_view()),
    path("projects/<slug:slug>/snapshots", snapshots.Snapshots.as_view()),
    path("assignments/<int:pk>/judgment", queue.Judging.as_view()),
    path("assignments/<int:pk>/skip", queue.Skip.as_view()),
    path("assignments/<int:pk>/shown", queue.Shown.as_view()),
    path("assignments/<int:pk>/flag", flags.Flagging.as_view()),
    path("judgments/<int:pk>/revise", people.Revising.as_view()),
    path("my/judgments", people.MyJudgments.as_view()),
    path("my/keys", people.MyHotkeys.as_view()),
    path("my/hours", people.MyHours.as_view()),
    path("flags/<int:pk>/settle", flags.Settling.as_view()),
    path("prompt-sets", prompts.PromptSets.as_view()),
    path("snapshots/<int:pk>", snapshots.OneSnapshot.as_view()),
    path("snapshots/<int:pk>/rows", snapshots.SnapshotRows.as_view()),
]
