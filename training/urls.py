from __future__ import annotations

from django.urls import path, re_path

from training.views import publishing, rounds, versions

urlpatterns = [
    path("rounds/", rounds.rounds, name="rounds"),
    path("rounds/<int:pk>/", rounds.round, name="round"),
    path("rounds/<int:pk>/progress", rounds.round_progress, name="round_progress"),
    re_path(
        r"^rounds/(?P<pk>\d{1,9})/(?P<verb>promote|reject|cancel|retry)$",
        rounds.decide,
        name="decide",
    ),
    path("models/", versions.versions, name="versions"),
    path("models/<int:pk>/", versions.version, name="version"),
    path("models/<int:pk>/push", publishing.push_model, name="push_model"),
    path("snapshots/<int:pk>/push", publishing.push_snapshot, name="push_snapshot"),
]
