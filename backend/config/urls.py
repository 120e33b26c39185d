"""The URLs of the web."""

from django.contrib import admin
from django.urls import path

from api.views import api
from config import views
from poolhouse.metrics.views import metrics

urlpatterns = [
    path("", views.index),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("metrics", metrics),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]
