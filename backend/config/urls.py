"""The web's addresses."""

from django.contrib import admin
from django.urls import path

from config import views

urlpatterns = [
    path("", views.index),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("admin/", admin.site.urls),
]
