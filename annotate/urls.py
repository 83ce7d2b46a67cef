from __future__ import annotations

from django.urls import path, re_path

from annotate.views import comparisons, judging, my_work, people, projects, prompts, snapshots

urlpatterns = [
    path("", judging.home, name="home"),
    path("judge/", judging.queues, name="queues"),
    path("judge/<slug:slug>/", judging.judge, name="judge"),
    path("judge/<slug:slug>/answer", judging.answer, name="answer"),
    path("judge/<slug:slug>/undo", judging.undo, name="undo"),
    path("judge/<slug:slug>/skip", judging.skip, name="skip"),
    path("judge/<slug:slug>/flag", judging.flag, name="flag"),
    path("judge/<slug:slug>/ahead/", judging.ahead, name="ahead"),
    path("judge/<slug:slug>/shown/", judging.shown, name="shown"),
    path("judge/<slug:slug>/consent", people.consent, name="consent"),
    path("judge/<slug:slug>/report", people.report, name="report_to_admins"),
    path("judge/<slug:slug>/guidelines/", judging.guidelines, name="guidelines"),
    path("my-work/", my_work.my_work, name="my_work"),
    path("my-work/hours.csv", my_work.my_hours, name="my_hours"),
    path("my-work/keys", my_work.hotkeys, name="hotkeys"),
    path("my-work/topics", my_work.avoid, name="avoid_topics"),
    path("my-work/<int:pk>/", my_work.revise, name="revise"),
    path("projects/", projects.projects, name="projects"),
    path("projects/<slug:slug>/", projects.project, name="project"),
    path("projects/<slug:slug>/settings", projects.settings, name="project_settings"),
    path("projects/<slug:slug>/people", people.terms, name="project_terms"),
    path("projects/<slug:slug>/reports/<int:pk>/", people.settle, name="settle_report"),
    path("projects/<slug:slug>/import", projects.import_file, name="import_comparisons"),
    path("projects/<slug:slug>/comparisons/", comparisons.comparisons, name="comparisons"),
    path("projects/<slug:slug>/comparisons/<int:pk>/", comparisons.comparison, name="comparison"),
    path("projects/<slug:slug>/comparisons/<int:pk>/reserve", comparisons.reserve, name="reserve"),
    path(
        "projects/<slug:slug>/comparisons/<int:pk>/topics", comparisons.topics, name="prompt_topics"
    ),
    path("projects/<slug:slug>/flags/<int:pk>/", projects.settle, name="settle_flag"),
    path("projects/<slug:slug>/freeze", snapshots.freeze, name="freeze"),
    path("projects/<slug:slug>/snapshots/<int:number>/", snapshots.snapshot, name="snapshot"),
    re_path(
        r"^projects/(?P<slug>[-\w]+)/snapshots/(?P<number>\d{1,9})/(?P<split>train|test)\.jsonl$",
        snapshots.download,
        name="snapshot_rows",
    ),
    path("prompts/", prompts.prompt_sets, name="prompt_sets"),
    path("prompts/<int:pk>/", prompts.prompt_set, name="prompt_set"),
]
