from __future__ import annotations

from django.urls import path, re_path

from training.views import (
    help,
    jobs,
    judges,
    overview,
    plans,
    preflight,
    publishing,
    rounds,
    runs,
    single,
    text_sets,
    versions,
)

urlpatterns = [
    path("overview/", overview.overview, name="overview"),
    path("rounds/", rounds.rounds, name="rounds"),
    path("plan/", plans.plan, name="plan"),
    path("advise/", single.advice, name="advise"),
    path("help/", help.help_contents, name="help"),
    path("help/<path:path>", help.help_page, name="help_page"),
    path("rounds/plan", plans.round_plan_panel, name="round_plan_panel"),
    path("rounds/<int:pk>/", rounds.round, name="round"),
    path("rounds/<int:pk>/live", rounds.round_live, name="round_live"),
    path("rounds/<int:pk>/events", rounds.round_events, name="round_events"),
    re_path(
        r"^rounds/(?P<pk>\d{1,9})/(?P<verb>promote|reject|cancel|retry)$",
        rounds.decide,
        name="decide",
    ),
    path("runs/new/", single.new_run, name="run_new"),
    path("runs/<int:pk>/", runs.run, name="run"),
    path("runs/<int:pk>/report", runs.report, name="run_report"),
    path("texts/", text_sets.text_sets, name="text_sets"),
    path("texts/<int:pk>/", text_sets.text_set, name="text_set"),
    path("models/", versions.versions, name="versions"),
    path("models/<int:pk>/", versions.version, name="version"),
    path("models/<int:pk>/push", publishing.push_model, name="push_model"),
    path("snapshots/<int:pk>/push", publishing.push_snapshot, name="push_snapshot"),
    path("snapshots/<int:pk>/preflight/", preflight.preflight, name="preflight"),
    path("snapshots/<int:pk>/preflight/panel", preflight.preflight_panel, name="preflight_panel"),
    path("projects/<slug:slug>/judges/", judges.judges, name="judges"),
    path("projects/<slug:slug>/judges/<int:pk>/", judges.judge_version, name="judge_version"),
    path("projects/<slug:slug>/judges/<int:pk>/accept", judges.accept, name="judge_accept"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/<int:pk>/", jobs.job, name="job"),
    re_path(r"^jobs/(?P<pk>\d{1,9})/(?P<verb>cancel|retry)$", jobs.decide, name="job_decide"),
]
