from __future__ import annotations

from django.urls import path

from annotate.views import judging, projects

urlpatterns = [
    path("", judging.home, name="home"),
    path("judge/", judging.queues, name="queues"),
    path("judge/<slug:slug>/", judging.judge, name="judge"),
    path("judge/<slug:slug>/answer", judging.answer, name="answer"),
    path("judge/<slug:slug>/undo", judging.undo, name="undo"),
    path("projects/", projects.projects, name="projects"),
    path("projects/<slug:slug>/", projects.project, name="project"),
    path("projects/<slug:slug>/freeze", projects.freeze, name="freeze"),
]
