"""The demonstration from posts to report, small."""

from demo import run


def test_the_demo_shows_both_models(tmp_path, capsys):
    report = run(tmp_path, posts=21)
    for folder in (tmp_path, tmp_path / "sgmft"):
        assert (folder / "model" / "model.safetensors").is_file()
        assert (folder / "evaluation" / "report.html").is_file()
        assert "Why this place?" in (folder / "why.html").read_text("utf-8")
    assert "Training" in (tmp_path / "sgmft" / "evaluation" / "report.html").read_text("utf-8")
    page = report.read_text("utf-8")
    for words in ("Two models", "similarity-gated experts", "arXiv 2405.05760", "none</td>"):
        assert words.lower() in page.lower()
    for address in ("evaluation/report.html", "sgmft/evaluation/report.html", "sgmft/why.html"):
        assert f'href="{address}"' in page
    assert len((tmp_path / "predictions.csv").read_text("utf-8").splitlines()) == 21 + 16 + 1
    assert "before and after" in (tmp_path / "insight" / "insight.html").read_text("utf-8").lower()
    assert "fixes.csv" in (tmp_path / "audit" / "audit.html").read_text("utf-8")
    assert "--method sgmft --preset elements --set width=128" in capsys.readouterr().out
