"""A screen with a chart: the keys of the chart, which metric it shows, along what, and the export."""
import time

from textual import work
from textual.binding import Binding

from runs import AXES, clean
from screens.basics import hidden
from screens.chart import Chart, as_csv, as_svg
from screens.shared import Ask, Page

CHART_KEYS = [
    hidden("x", "log('x')", "Log x"),
    hidden("y", "log('y')", "Log y"),
    hidden("plus,equals_sign", "chart('zoom', 0.5)", "Zoom in"),
    hidden("minus", "chart('zoom', 2)", "Zoom out"),
    hidden("0", "chart('reset')", "Zoom to all"),
    Binding("v", "metric", "Metric"),
    hidden("V", "metric(-1)", "Metric before"),
    hidden("a", "axis", "Along steps, tokens or minutes"),
    hidden("e", "export", "Export: CSV, SVG, PNG"),
]


class Charted(Page):
    """A page with a chart, whose keys work wherever the focus is, and with a run that other keys are about.
    Which metrics it can show is in METRICS, which was chosen in .metric, and along what in .axis."""

    axis = AXES[0]
    metric = ""

    @property
    def metrics(self):
        "Those to choose from."
        return list(self.METRICS)

    @property
    def shown_metric(self):
        return self.metric

    def action_metric(self, by=1):
        order = self.metrics
        self.metric = order[(order.index(self.shown_metric) + by) % len(order)]
        self.show()

    def action_axis(self):
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        self.show()

    @work
    async def action_export(self):
        "What the chart shows, as numbers or as a picture, beside the runs."
        chart = self.query_one(Chart)
        if not chart.curves:
            self.notify("There is nothing in the chart yet", severity="warning")
            return
        answers = {"c": "CSV, the numbers", "s": "SVG, a picture that scales"}
        if "loss" in self.shown_metric:
            answers["p"] = "PNG, the losses, by gpt.py plot (pip install matplotlib)"
        kind = await self.app.push_screen_wait(Ask("export what is shown", "As which file?", **answers))
        if not kind:
            return
        suffix = {"c": "csv", "s": "svg", "p": "png"}[kind]
        names = ["chart", time.strftime("%Y%m%d-%H%M%S")]
        runs = self.meant()
        if len(runs) == 1:
            names.insert(1, runs[0].folder.name)
        path = self.app.root / f"{'-'.join(names)}.{suffix}"
        trouble = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "c":
                path.write_text(as_csv(chart), encoding="utf-8")
            elif kind == "s":
                path.write_text(as_svg(chart, chart.border_title or self.metric), encoding="utf-8")
            else:
                folders = [str(run.folder) for run in runs]
                code, _, said = await self.app.ask("plot", *folders, "--out", str(path))
                trouble = said if code else ""
        except OSError as e:
            trouble = f"{clean(path)}: {e.strerror}"
        if trouble:
            self.notify(trouble, severity="error")
        else:
            self.notify(str(path), title="written")

    def action_log(self, axis):
        chart = self.query_one(Chart)
        log = not getattr(chart, f"log_{axis}")
        setattr(chart, f"log_{axis}", log)
        self.notify(f"{axis} is {'logarithmic' if log else 'linear'}", timeout=1.5)

    def action_chart(self, name, *arguments):
        getattr(self.query_one(Chart), f"action_{name}")(*arguments)

    def action_chat(self, name="best.pt"):
        self.app.talk_to(self.run, name)

    def action_copy(self):
        self.app.copy_command(self.run)
